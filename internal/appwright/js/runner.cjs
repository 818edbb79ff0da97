// The main program of a runner. It loads Playwright and AppWright, and a worker process that has loaded them,
// too, and then waits for its order: one line of JSON on standard input with the directory, the environment
// and the arguments of a run. Everything that depends on the run, the project's config first of all, is
// evaluated after that. Without an order it ends with its input.
"use strict";

const childProcess = require("child_process");
const { createRequire } = require("module");
const path = require("path");
const readline = require("readline");

const testPackage = path.join(process.env.QGJOB_PLAYWRIGHT, "package.json");
const fromTest = createRequire(testPackage);
const playwright = path.dirname(fromTest.resolve("playwright/package.json"));
const workerProgram = path.join(playwright, "lib", "common", "process.js");

// The variables that Playwright gives to its worker processes and that packages read when they are loaded.
const workerColors = { FORCE_COLOR: "1", DEBUG_COLORS: "1" };

const fork = childProcess.fork;
let spare = fork(path.join(__dirname, "worker.cjs"), {
  env: { ...process.env, ...workerColors },
  stdio: ["ignore", "pipe", "pipe", "ipc"],
});
spare.on("error", () => {});
spare.on("exit", () => (spare = null));

// Playwright's first worker process is the one that is loaded already, if it is asked for as usual.
childProcess.fork = function (modulePath, ...rest) {
  const options = rest[0];
  const usual = modulePath === workerProgram && rest.length === 1 && options && !options.execArgv;
  if (!usual || spare === null || !spare.connected) return fork(modulePath, ...rest);
  const worker = spare;
  spare = null;
  worker.removeAllListeners("error");
  worker.removeAllListeners("exit");
  worker.send({ program: workerProgram, env: options.env, cwd: process.cwd() });
  return worker;
};

const { program } = fromTest("playwright/lib/program");
if (process.env.QGJOB_APPWRIGHT) {
  try {
    require(process.env.QGJOB_APPWRIGHT);
  } catch {
    // The config says it better.
  }
}

const input = readline.createInterface({ input: process.stdin });
const withoutOrder = () => process.exit(0);
input.once("close", withoutOrder);
input.once("line", (line) => {
  input.removeListener("close", withoutOrder);
  input.close();
  process.stdin.destroy();
  const order = JSON.parse(line);
  for (const name of Object.keys(process.env)) delete process.env[name];
  Object.assign(process.env, order.env);
  process.chdir(order.cwd);
  process.argv = [process.execPath, path.join(playwright, "cli.js"), ...order.args];
  program.parse(process.argv);
});
