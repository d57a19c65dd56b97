"""An HTTP server that is started with its socket open, as systemd would start it."""

import http.server
import os
import signal
import socket
import threading
import time


def notify(state):
    """Tell the service manager (sd_notify(3))."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            s.sendto(state.encode(), "\0" + address[1:] if address[0] == "@" else address)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for the requests under way
    beat = int(os.environ.get("WATCHDOG_USEC", 0)) / 4e6
    beaten = 0

    def service_actions(self):  # called by the loop: so a loop that hangs is found
        if self.beat and time.monotonic() > self.beaten + self.beat:
            self.beaten = time.monotonic()
            notify("WATCHDOG=1")


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = f"{os.environ['COPPICE_NAME']} generation {os.environ['COPPICE_GENERATION']}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


if os.environ.get("LISTEN_PID") != str(os.getpid()):
    raise SystemExit("started without sockets: LISTEN_PID is not this process")
server = Server(("", 0), Handler, bind_and_activate=False)
server.socket.close()
server.socket = socket.socket(fileno=3)  # the first of LISTEN_FDS; it is non-blocking, as others have it too

# The drain: accept no more, finish what was begun, end.
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
notify("READY=1\nSTATUS=serving")
server.serve_forever(poll_interval=0.05)
notify("STOPPING=1")
server.server_close()
