import type { Device } from "appwright";

/** Leaves the welcome screens and signs in. */
export async function signIn(device: Device, email = "ada@example.com", password = "open sesame") {
  await device.getByText("Next").tap();
  await device.getByText("Get started").tap();
  await device.getById("email").fill(email);
  await device.getById("password").fill(password);
  await device.getById("sign_in").tap();
}
