import { test, expect } from "appwright";

test("a newcomer is shown around", async ({ device }) => {
  await expect(device.getByText("Groceries from around the corner")).toBeVisible();
  await device.getByText("Next").tap();
  await expect(device.getByText("At your door in twenty minutes")).toBeVisible();
  await device.getByText("Get started").tap();
  await expect(device.getByText("Sign in", { exact: true })).toBeVisible();
});
