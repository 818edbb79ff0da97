import { test, expect } from "appwright";

test.describe("signing in", () => {
  test("greets", async ({ device }) => {
    await device.getByText("Login").tap();
    await expect(device.getByText("Hello, admin")).toBeVisible();
  });
});
