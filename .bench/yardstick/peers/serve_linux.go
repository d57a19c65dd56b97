package peers

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Serve is one process of a plain server on a listener that its parent has opened: "accept" writes
// the byte id to each connection and closes it, "http" answers "ok". It ends with the process.
func Serve(what string, id byte, f *os.File) error {
	ln, err := net.FileListener(f)
	if err != nil {
		return err
	}
	f.Close()
	if what == "http" {
		return http.Serve(ln, http.HandlerFunc(OK))
	}
	return Bytes(ln, id)
}

// FileVar names the file that OK sends.
const FileVar = "YARDSTICK_FILE"

// OK answers two bytes, /file by a file, and /counts by how often this process has allocated memory
// and has gone to sleep.
func OK(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/file":
		http.ServeFile(w, r, os.Getenv(FileVar))
	case "/counts":
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		var u unix.Rusage
		_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
		fmt.Fprintln(w, m.Mallocs, u.Nvcsw)
	default:
		_, _ = io.WriteString(w, "ok")
	}
}

// Bytes writes the byte id to each connection and closes it, until ln is closed.
func Bytes(ln net.Listener, id byte) error {
	b := []byte{id}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		_, _ = c.Write(b) // an error here is a client that left
		_ = c.Close()
	}
}
