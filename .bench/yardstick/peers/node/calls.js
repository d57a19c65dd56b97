// A pool of Node's worker threads, as libraries build it: one call at a time in each, the others wait. Calls with an
// input of size bytes, of which the function reads a byte a page, twice as many at once as there are workers.
// Arguments: workers, size, seconds, and "transfer" for inputs that change hands instead of being copied, or "shared"
// for one in memory that all threads share. Prints "begin", then how it went, and ends by a signal.
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
const { performance } = require('node:perf_hooks');

if (!isMainThread) {
  parentPort.on('message', (input) => {
    let sum = 0;
    for (let i = 0; i < input.length; i += 4096) sum += input[i];
    parentPort.postMessage(sum);
  });
} else {
  const [workers, size, seconds] = process.argv.slice(2, 5).map(Number);
  const transfer = process.argv[5] === 'transfer';
  const free = [];
  const queue = [];
  const next = () => {
    while (free.length > 0 && queue.length > 0) {
      const worker = free.pop();
      const [input, resolve] = queue.shift();
      worker.done = resolve;
      worker.postMessage(input, transfer ? [input.buffer] : []);
    }
  };
  const call = (input) => new Promise((resolve) => {
    queue.push([input, resolve]);
    next();
  });
  for (let i = 0; i < workers; i++) {
    const worker = new Worker(__filename);
    worker.on('message', (sum) => {
      worker.done(sum);
      free.push(worker);
      next();
    });
    free.push(worker);
  }
  const shared = new Uint8Array(process.argv[5] === 'shared' ? new SharedArrayBuffer(size) : size).fill(1);
  const run = async (until, took) => {
    while (performance.now() < until) {
      const began = performance.now();
      const sum = await call(transfer ? new Uint8Array(size).fill(1) : shared);
      if (sum !== Math.ceil(size / 4096)) throw new Error(`sum ${sum}`);
      took.push(performance.now() - began);
    }
  };
  const load = async (ms) => {
    const took = [];
    const began = performance.now();
    await Promise.all(Array.from({ length: 2 * workers }, () => run(began + ms, took)));
    return [took, performance.now() - began];
  };
  load(300).then(async () => {
    console.log('begin');
    const [took, ms] = await load(seconds * 1000);
    took.sort((a, b) => a - b);
    const at = (q) => took[Math.min(Math.floor(q * took.length), took.length - 1)] * 1000;
    console.log(JSON.stringify({ n: took.length, seconds: ms / 1000, p50_us: at(0.5), p99_us: at(0.99) }));
  });
}
