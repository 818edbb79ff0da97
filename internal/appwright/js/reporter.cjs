// A Playwright reporter that writes what happens as lines of JSON, at once, to the file named by
// QGJOB_EVENTS: what is known of a run that never gets to write its report, and when things happened.
// For an inspection it is the way to learn what the config holds.
"use strict";

const fs = require("fs");

const MAX_ERROR = 16 << 10; // a result keeps less, without the colours

class EventReporter {
  constructor() {
    keepReports();
    this.file = fs.openSync(process.env.QGJOB_EVENTS, "a");
    this.bodyEnded = new Set();
  }

  // The second form of Playwright's reporter interface: onConfigure comes before the global setup.
  version() {
    return "v2";
  }

  printsToStdio() {
    return false;
  }

  write(kind, fields) {
    fs.writeSync(this.file, JSON.stringify({ kind, at_ms: Date.now(), ...fields }) + "\n");
  }

  onConfigure(config) {
    const projects = config.projects.map((p) => ({
      name: p.name,
      provider: String(p.use?.device?.provider ?? ""),
      platform: String(p.use?.platform ?? ""),
      build_path: typeof p.use?.buildPath === "string" ? p.use.buildPath : "",
    }));
    this.write("configure", { projects });
    this.nameBuild(config.projects);
  }

  // AppWright's global setup refuses to start without the build's file. When the worker brings the build,
  // the file that the config names need not exist, and the config need not name one.
  nameBuild(projects) {
    const build = process.env.QGJOB_BUILD_PATH;
    if (!build) return;
    for (const p of projects) {
      if (p.use?.device?.provider) p.use.buildPath = build;
    }
  }

  onTestBegin(test, result) {
    this.write("test_begin", {
      id: test.id,
      title: title(test),
      file: test.location.file,
      line: test.location.line,
      column: test.location.column,
      retry: result.retry,
    });
  }

  // Playwright's step "After Hooks" begins when the body of the test has ended, one way or the other.
  onStepBegin(test, result, step) {
    if (step.title !== "After Hooks" || step.category !== "hook") return;
    if (this.bodyEnded.has(result)) return;
    this.bodyEnded.add(result);
    this.write("body_end", { id: test.id, retry: result.retry, at_ms: step.startTime.getTime() });
  }

  onTestEnd(test, result) {
    this.write("test_end", {
      id: test.id,
      retry: result.retry,
      status: result.status,
      ok: test.ok(),
      duration_ms: Math.round(result.duration),
      error: (result.error?.message ?? "").slice(0, MAX_ERROR),
    });
  }
}

// The reporters that decide and that are kept learn their paths from variables, which a config may set for
// its own ones. This reporter is made before them.
function keepReports() {
  if (!process.env.QGJOB_REPORT) return;
  process.env.PLAYWRIGHT_JSON_OUTPUT_FILE = process.env.QGJOB_REPORT;
  process.env.PLAYWRIGHT_JSON_OUTPUT_NAME = process.env.QGJOB_REPORT; // the name before Playwright 1.49
  process.env.PLAYWRIGHT_BLOB_OUTPUT_DIR = process.env.QGJOB_BLOB_DIR;
}

function title(test) {
  return test.titlePath().slice(3).join(" > "); // without the root, the project and the file
}

module.exports = EventReporter;
