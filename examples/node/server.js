'use strict';
// An HTTP server that is started with its socket open, as systemd would start it.
const http = require('node:http');
const net = require('node:net');

if (process.env.LISTEN_PID !== String(process.pid)) {
	console.error('started without sockets: LISTEN_PID is not this process');
	process.exit(1);
}
let draining = false;
const server = http.createServer((req, res) => {
	if (draining) res.setHeader('Connection', 'close');
	res.end(`${process.env.COPPICE_NAME} generation ${process.env.COPPICE_GENERATION}\n`);
});
server.listen({ fd: 3 }, () => console.log('listening')); // the first of LISTEN_FDS

// The drain: accept no more, answer what was accepted, end. The close of http.Server would close
// connections whose first request is on its way.
process.on('SIGTERM', () => {
	draining = true;
	net.Server.prototype.close.call(server, () => process.exit(0));
	setTimeout(() => server.closeIdleConnections(), 1000);
});
