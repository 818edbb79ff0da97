import { test as base, expect } from "appwright";
import { createDeviceProvider } from "appwright/dist/providers";

// What later versions of AppWright call persistentDevice: one session for all tests of a worker.
const test = base.extend<{}, { persistentDevice: any }>({
  persistentDevice: [
    async ({}, use, worker) => {
      const device: any = await createDeviceProvider(worker.project as any).getDevice();
      await use(device);
      await device.webdriverClient.deleteSession();
    },
    { scope: "worker" },
  ],
});

test("first", async ({ persistentDevice }) => {
  await persistentDevice.getByText("Login").tap();
});

test("second", async ({ persistentDevice }) => {
  await expect(persistentDevice.getByText("Hello, admin")).toBeVisible();
});
