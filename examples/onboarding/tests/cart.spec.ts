import { test, expect } from "appwright";
import { signIn } from "./app";

test("the cart counts what is put into it", async ({ device }) => {
  await signIn(device);
  await device.getById("add_bread").tap();
  await device.getById("add_bread").tap();
  await device.getById("cart").tap();
  await expect(device.getByText("2 in the cart")).toBeVisible();
});
