package peers

import (
	"io"
	"net"
	"net/http"
	"os"
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

// OK answers two bytes, and /file by a file.
func OK(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/file" {
		http.ServeFile(w, r, os.Getenv(FileVar))
		return
	}
	_, _ = io.WriteString(w, "ok")
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
