// A client of HTTP/2 that keeps a connection, tells how it ends, and opens another, until
// it hears of the generation that it waits for.
import http2 from "node:http2";

const [, , url, awaited] = process.argv;

function visit() {
  let done = false;
  const session = http2.connect(url, { rejectUnauthorized: false });
  session.on("goaway", (code) => console.log(`goaway ${code}`));
  session.on("error", (err) => console.log(`error ${err.message}`));
  session.on("close", () => {
    console.log("closed");
    if (!done) visit();
  });
  const stream = session.request({ ":path": "/" });
  let answer = "";
  stream.setEncoding("utf8");
  stream.on("data", (part) => (answer += part));
  stream.on("error", () => {}); // it crossed the GOAWAY: asked again, of another
  stream.on("end", () => {
    if (answer) console.log(answer.trim());
    if (answer.includes(awaited)) {
      done = true;
      session.close();
    }
  });
  stream.end();
}

visit();
