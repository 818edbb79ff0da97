// Loaded into every Node process of a run by NODE_OPTIONS=--require.
//
// AppWright talks to Appium on the fixed port 4723 of this host. Each run has a session proxy on a port
// of its own, so that several runs share a host: connections to 4723 go there instead. It is done where
// all HTTP clients meet, at the socket.
"use strict";

const net = require("net");

const APPIUM_PORT = "4723";
const proxyPort = Number(process.env.QGJOB_SESSION_PORT);
const loopback = new Set([undefined, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"]);

function redirected(options) {
  if (String(options.port) !== APPIUM_PORT || !loopback.has(options.host)) return options;
  return Object.assign(options, { port: proxyPort, host: "127.0.0.1" });
}

if (proxyPort > 0) {
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
}
