import { test, expect } from "appwright";
import { signIn } from "./app";

// Fails: version 1.2.0 of the app adds up wrongly.
test("the total is right", async ({ device }) => {
  await signIn(device);
  await device.getById("add_bread").tap();
  await device.getById("cart").tap();
  await expect(device.getByText("Total 2.50")).toBeVisible();
});
