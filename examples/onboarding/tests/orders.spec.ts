import { test, expect } from "appwright";
import { signIn } from "./app";

// Flaky: the shop's server does not answer the first request after a long pause.
test("past orders are listed", async ({ device }) => {
  await signIn(device);
  await device.getById("orders").tap();
  await device.getById("load").tap();
  await expect(device.getByText("Order 1001, delivered")).toBeVisible();
});
