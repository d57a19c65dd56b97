// A cluster of Node's of as many workers as the argument says: each writes one byte, its number, to
// each connection and ends it. Prints the port when all listen.
'use strict'
const cluster = require('cluster')
const net = require('net')

if (cluster.isPrimary) {
  const size = Number(process.argv[2])
  let up = 0
  cluster.on('listening', (_, address) => {
    if (++up === size) console.log(address.port)
  })
  for (let i = 0; i < size; i++) cluster.fork({ NUMBER: i })
} else {
  const byte = String(process.env.NUMBER)
  net.createServer((c) => {
    c.on('error', () => {})
    c.end(byte)
  }).listen(0, '127.0.0.1')
}
