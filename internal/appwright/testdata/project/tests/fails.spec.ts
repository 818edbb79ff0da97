import { test, expect } from "appwright";

test("finds what is there", async ({ device }) => {
  await expect(device.getByText("Login")).toBeVisible();
});

test("misses what is not", async ({ device }) => {
  await expect(device.getByText("Nope")).toBeVisible({ timeout: 500 });
});
