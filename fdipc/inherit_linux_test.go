package fdipc_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// A child that has taken handles, and its own child, list what they have open: no channel, no
// handle and no marker variable reaches the grandchild.
func TestNothingLeaksToGrandchild(t *testing.T) {
	got := make(chan string, 1)
	c := spawn(t, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- string(f.Payload) }}, map[string]string{"ROLE": "list"})
	client, server := tcpPair(t)
	defer client.Close()
	h, err := fdipc.HandleOf(server)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: []*fdipc.Handle{h}}); err != nil {
		t.Fatal(err)
	}
	out := wait(t, "list", got)
	for line := range strings.Lines(out) {
		for _, bad := range []string{"socket:", "memfd:", "COPPICE_CHANNEL", "COPPICE_CHILD_"} {
			if strings.Contains(line, bad) {
				t.Errorf("the grandchild has %s", line)
			}
		}
	}
	if !strings.Contains(out, "pipe:") {
		t.Errorf("no list: %s", out)
	}
}

// Marker variables that make no sense are an error that names the variable, and are gone.
func TestInheritErrors(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, want string
		env        []string
	}{
		{"not a number", "COPPICE_CHANNEL=x", []string{"COPPICE_CHANNEL=x"}},
		{"empty", "COPPICE_CHANNEL=", []string{"COPPICE_CHANNEL="}},
		{"standard input", "COPPICE_CHANNEL=0", []string{"COPPICE_CHANNEL=0"}},
		{"not open", "COPPICE_CHANNEL=77: bad file descriptor", []string{"COPPICE_CHANNEL=77"}},
		{"a pipe", "COPPICE_CHANNEL=3: socket operation on non-socket", []string{"COPPICE_CHANNEL=3"}},
		{"half set", "COPPICE_CHANNEL: missing", []string{"COPPICE_CHILD_ROLE=worker"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), row.env...)
			cmd.ExtraFiles = []*os.File{r}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), row.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// listDescriptors answers with what it has open, in itself and in a grandchild.
func listDescriptors(f *os.File, _ map[string]string) {
	c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
		for _, h := range f.Handles {
			_ = h.Claim()
		}
		out, err := exec.Command("/bin/sh", "-c", "ls -l /proc/self/fd; env").CombinedOutput()
		if err != nil {
			out = append(out, err.Error()...)
		}
		_ = c.TrySend(&fdipc.Frame{Kind: kindCount, Payload: out})
	}})
	if err != nil {
		panic(err)
	}
	<-c.Done()
}
