// A worker process of Playwright that has loaded what it needs before it is asked for. runner.cjs starts it.
"use strict";

const { createRequire } = require("module");
const path = require("path");
const { pathToFileURL } = require("url");

const fromTest = createRequire(path.join(process.env.QGJOB_PLAYWRIGHT, "package.json"));
const playwright = path.dirname(fromTest.resolve("playwright/package.json"));

const parentLeft = () => process.exit(0);
process.once("disconnect", parentLeft);
process.once("message", (order) => {
  process.removeListener("disconnect", parentLeft);
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, order.env);
  process.chdir(order.cwd);
  process.argv[1] = order.program;
  require(order.program);
});

require(path.join(playwright, "lib", "worker", "workerMain.js"));
if (process.env.QGJOB_APPWRIGHT) {
  try {
    require(process.env.QGJOB_APPWRIGHT);
    // AppWright imports webdriver when it makes its first session; what it gets are the ES modules.
    const webdriver = path.dirname(createRequire(process.env.QGJOB_APPWRIGHT).resolve("webdriver/package.json"));
    import(pathToFileURL(path.join(webdriver, "build", "index.js")).href).catch(() => {});
  } catch {
    // The spec says it better.
  }
}
