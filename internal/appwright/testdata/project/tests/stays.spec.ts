import { test } from "appwright";
import { spawn } from "child_process";

test("starts what outlives it, and never ends", async ({ device }) => {
  spawn("sleep", ["1000"], { detached: true, stdio: "ignore" }).unref();
  spawn("sleep", ["1000"], { stdio: "inherit" }).unref();
  console.log("STAYS");
  await new Promise(() => setInterval(() => {}, 1000));
});
