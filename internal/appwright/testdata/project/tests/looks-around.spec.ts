import { test, expect } from "appwright";
import { execSync } from "child_process";

test("sees what it should and nothing else", async () => {
  expect(process.env.SECRET_OF_THE_WORKER).toBeUndefined();
  expect(process.env.FROM_THE_CI).toBe("yes");
  expect(process.env.ANDROID_SERIAL).toBe("serial-1");
  expect(execSync("adb devices").toString()).toBe("List of devices attached\nserial-1\tdevice\n\n");
  expect(() => execSync("pkill -f node", { stdio: "pipe" })).toThrow();
  execSync("pkill -f appium");
});
