import { defineConfig, Platform } from "appwright";

process.env.PLAYWRIGHT_JSON_OUTPUT_NAME = process.env.PLAYWRIGHT_JSON_OUTPUT_FILE = "results/mine.json";

// Everything that a user's config may say and a run must not be disturbed by.
export default defineConfig({
  reporter: [["html", { open: "always" }], ["dot"]],
  retries: 3,
  workers: 4,
  timeout: 0,
  fullyParallel: true,
  shard: { current: 2, total: 2 },
  projects: [
    {
      name: "phone",
      use: {
        platform: Platform.ANDROID,
        device: { provider: "local-device" },
        buildPath: "build/app.apk",
        expectTimeout: 3_000,
      },
    },
    {
      name: "emulator",
      use: {
        platform: Platform.ANDROID,
        device: { provider: "emulator" },
        expectTimeout: 3_000,
      },
    },
    { name: "cloud", use: { platform: Platform.IOS, device: { provider: "browserstack" }, buildPath: "https://example.com/app.ipa" } },
    { name: "cloud too", use: { platform: Platform.IOS, device: { provider: "browserstack" }, buildPath: "/builds/app.ipa" } },
  ],
});
