// Node before 22.21 and 24.5 reads no proxy variables, and a bottle has no other way out. This leads
// 'fetch', 'https' and 'http' to the proxy of HTTPS_PROXY and HTTP_PROXY; a Node that has the option
// --use-env-proxy does so itself, by NODE_USE_ENV_PROXY.
'use strict';

const http = require('http');
const https = require('https');
const net = require('net');
const tls = require('tls');

const { HTTPS_PROXY, NO_PROXY = '' } = process.env;
const direct = new Set(NO_PROXY.split(','));

// Asks the proxy for a tunnel; HTTP in the clear goes through one too.
function tunnel(host, port, done) {
  const proxy = new URL(HTTPS_PROXY);
  const authority = `${net.isIPv6(host) ? `[${host}]` : host}:${port}`;
  const request = http.request({
    agent: new http.Agent(), host: proxy.hostname, port: proxy.port,
    method: 'CONNECT', path: authority, headers: { host: authority },
  });
  request.on('error', done);
  request.on('connect', (answer, socket) => {
    if (answer.statusCode === 200) return done(null, socket);
    let why = `the proxy refused '${authority}' with status ${answer.statusCode}`;
    if (answer.headers['x-bottle-denied']) why += `: ${answer.headers['x-bottle-denied']}`;
    socket.destroy();
    done(new Error(why));
  });
  request.end();
}

// A connection to where the options say, by the proxy.
function connect(options, secure, done) {
  const host = (options.hostname || options.host || 'localhost').replace(/^\[|\]$/g, '');
  const port = options.port || (secure ? 443 : 80);
  const name = options.servername || (net.isIP(host) ? '' : host);
  const ready = (socket) => {
    if (!secure) return done(null, socket);
    const inner = tls.connect({ ...options, host, path: undefined, socket, servername: name });
    inner.once('error', done);
    inner.once('secureConnect', () => { inner.removeListener('error', done); done(null, inner); });
  };
  if (direct.has(host)) {
    const socket = net.connect({ host, port });
    socket.once('error', done);
    socket.once('connect', () => { socket.removeListener('error', done); ready(socket); });
  } else {
    tunnel(host, port, (error, socket) => (error ? done(error) : ready(socket)));
  }
}

function lead(agent, secure) {
  agent.createConnection = (options, done) => connect(options, secure, done);
}

if (HTTPS_PROXY && !process.allowedNodeEnvironmentFlags.has('--use-env-proxy')) {
  lead(https.globalAgent, true);
  lead(http.globalAgent, false);
  const key = Symbol.for('undici.globalDispatcher.1');
  const own = globalThis.fetch;
  if (own) {
    globalThis.fetch = function fetch(...given) {
      // Node makes its own only with the first use.
      if (!globalThis[key] || !globalThis[key].ofBottle) {
        own('data:,').catch(() => {});
        const Agent = globalThis[key] && globalThis[key].constructor;
        if (Agent) {
          const agent = new Agent({
            connect: (options, done) => connect(options, options.protocol === 'https:', done),
          });
          agent.ofBottle = true;
          globalThis[key] = agent;
        }
      }
      return own.apply(this, given);
    };
  }
}
