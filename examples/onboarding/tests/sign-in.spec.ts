import { test, expect } from "appwright";
import { signIn } from "./app";

test("a customer signs in", async ({ device }) => {
  await signIn(device);
  await expect(device.getByText("Hello, ada@example.com")).toBeVisible();
});

test("a wrong password is refused", async ({ device }) => {
  await signIn(device, "ada@example.com", "close sesame");
  await expect(device.getByText("E-mail or password is wrong")).toBeVisible();
});
