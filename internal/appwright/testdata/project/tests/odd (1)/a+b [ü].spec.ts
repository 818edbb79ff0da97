import { test, expect } from "appwright";

test("only this file runs", async ({ device }) => {
  await expect(device.getByText("Login")).toBeVisible();
});
