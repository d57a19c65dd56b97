// What Node's cluster does when a worker is killed: the primary learns of its exit and forks another. Prints
// "ready PID" each time a worker listens.
const cluster = require('node:cluster');
const http = require('node:http');

if (cluster.isPrimary) {
  const workers = Number(process.argv[2]);
  let first = workers;
  cluster.on('listening', (worker, address) => {
    if (first > 0 && --first === 0) console.log(`serving on 127.0.0.1:${address.port}`);
    if (first === 0) console.log(`ready ${worker.process.pid}`);
  });
  cluster.on('exit', () => cluster.fork());
  for (let i = 0; i < workers; i++) cluster.fork();
} else {
  http.createServer((req, res) => res.end('OK')).listen(0, '127.0.0.1');
}
