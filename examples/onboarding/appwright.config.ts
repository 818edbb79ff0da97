import { defineConfig, Platform } from "appwright";

const buildPath = "build/corner-shop.apk";

export default defineConfig({
  testDir: "./tests",
  projects: [
    {
      name: "phone",
      use: {
        platform: Platform.ANDROID,
        device: { provider: "local-device" },
        buildPath,
        expectTimeout: 5_000,
      },
    },
    {
      name: "emulator",
      use: {
        platform: Platform.ANDROID,
        device: { provider: "emulator" },
        buildPath,
        expectTimeout: 5_000,
      },
    },
    {
      name: "iphone",
      use: {
        platform: Platform.IOS,
        device: { provider: "local-device" },
        buildPath: "build/corner-shop.ipa",
        expectTimeout: 5_000,
      },
    },
    {
      name: "simulator",
      use: {
        platform: Platform.IOS,
        device: { provider: "emulator" },
        buildPath: "build/corner-shop.app",
        expectTimeout: 5_000,
      },
    },
    {
      name: "cloud",
      use: {
        platform: Platform.ANDROID,
        device: { provider: "browserstack", name: "Google Pixel 8", osVersion: "14.0" },
        buildPath,
        expectTimeout: 5_000,
      },
    },
    {
      name: "cloud-iphone",
      use: {
        platform: Platform.IOS,
        device: { provider: "browserstack", name: "iPhone 15", osVersion: "17" },
        buildPath: "build/corner-shop.ipa",
        expectTimeout: 5_000,
      },
    },
  ],
});
