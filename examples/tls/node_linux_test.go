package main

import (
	"bufio"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestNode: a client that is not Go's has a connection of HTTP/2 and does nothing
// when its worker is to go. It hears GOAWAY without an error, closes in order, and is
// in the end served by a new worker.
func TestNode(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("no node here")
	}
	p, url := start(t)
	cmd := exec.CommandContext(t.Context(), node, "testdata/goaway.mjs", url, "generation 2")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	goaways, answers, last := 0, 0, ""
	for heard := bufio.NewScanner(out); heard.Scan(); {
		switch last = heard.Text(); {
		case last == "goaway 0":
			goaways++
		case strings.HasSuffix(last, ": new session, TLS 1.3, HTTP/2.0"):
			if answers++; answers == 1 {
				p.Signal(syscall.SIGHUP)
			}
		case last != "closed":
			t.Errorf("node says %q", last)
		}
	}
	if err := cmd.Wait(); err != nil || goaways == 0 || answers < 2 || last != "closed" {
		t.Errorf("%d answers, %d times GOAWAY, then %q: %v", answers, goaways, last, err)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
