// Loaded into every Node process of a run by NODE_OPTIONS=--require.
//
// AppWright talks to Appium on the fixed port 4723 of this host. Each run has a session proxy on a port
// of its own, so that several runs share a host: connections to 4723 go there instead. It is done where
// all HTTP clients meet, at the socket.
"use strict";

const fs = require("fs");
const net = require("net");
const tls = require("tls");

const APPIUM_PORT = "4723";
const loopback = new Set([undefined, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"]);

function redirected(options) {
  // A runner that is started ahead learns its port late.
  const proxyPort = Number(process.env.QGJOB_SESSION_PORT);
  if (!(proxyPort > 0) || String(options.port) !== APPIUM_PORT || !loopback.has(options.host)) return options;
  return Object.assign(options, { port: proxyPort, host: "127.0.0.1" });
}

const connect = net.Socket.prototype.connect;
net.Socket.prototype.connect = function (...args) {
  const first = args[0];
  if (Array.isArray(first)) {
    redirected(first[0]); // net.connect hands over its arguments normalised: [options, callback]
  } else if (first !== null && typeof first === "object") {
    args[0] = redirected({ ...first });
  } else if (String(first) === APPIUM_PORT) {
    const host = typeof args[1] === "string" ? args.splice(1, 1)[0] : undefined;
    args[0] = redirected({ port: first, host });
  }
  return connect.apply(this, args);
};

// AppWright's names for BrowserStack are fixed, too. Where a run has something that stands before the cloud,
// connections to them go there; its certificate is trusted for them alone.
const cloudHost = /(^|\.)browserstack\.com$/i;
const connectTLS = tls.connect;

tls.connect = function (...args) {
  const port = Number(process.env.QGJOB_CLOUD_PORT);
  const i = args.findIndex((a) => a !== null && typeof a === "object");
  const options = i < 0 ? {} : args[i];
  const host = typeof args[1] === "string" ? args[1] : (options.host ?? options.hostname);
  const servername = String(options.servername || host);
  if (!(port > 0) || options.socket !== undefined || !cloudHost.test(servername)) return connectTLS.apply(this, args);
  const ca = fs.readFileSync(process.env.QGJOB_CLOUD_CERT);
  const callback = args.find((a) => typeof a === "function");
  return connectTLS.call(this, { ...options, host: "127.0.0.1", hostname: undefined, port, path: undefined, servername, ca }, callback);
};

// After each test there AppWright waits ten seconds for a video, which the attempt only links to.
const VIDEO_WAIT = 10_000;
const later = global.setTimeout;
const setTimeout = function (callback, ms, ...rest) {
  const video = ms === VIDEO_WAIT && process.env.QGJOB_CLOUD_PORT && /appwright[\\/]dist[\\/]providers[\\/]browserstack/.test(new Error().stack);
  return later(callback, video ? 0 : ms, ...rest);
};
global.setTimeout = Object.defineProperties(setTimeout, Object.getOwnPropertyDescriptors(later));
