//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
)

func init() {
	trees["listen rules"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := tell(ctx, w, workerReport{Addr: strings.Join(tryAll(ctx, w, os.Getenv("COPPICE_TEST_DIR")), "\n")}); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		web := cfg.Children[0].(coppice.Pool)
		web.Listen = coppice.ListenRules{Allow: []coppice.ListenRule{
			{Network: "tcp", Address: "127.0.0.1", Ports: "0"}, {Network: "unix", Address: os.Getenv("COPPICE_TEST_DIR") + "/"},
		}}
		cfg.Children = []coppice.ChildSpec{coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.2:0"}, web}
		return cfg
	}
}

// tryAll asks for one socket in each way that there is, and returns which of them were not allowed.
func tryAll(ctx context.Context, w *coppice.Worker, dir string) (denied []string) {
	try := func(name string, c interface{ Close() error }, err error) {
		oe, is := errors.AsType[*net.OpError](err)
		switch {
		case err == nil:
			_ = c.Close()
		case is && oe.Op == "listen" && errors.Is(err, coppice.ErrListenDenied) && errors.Is(err, fs.ErrPermission) &&
			errors.Is(err, syscall.EACCES) && strings.Contains(err.Error(), "Pool.Listen"):
			denied = append(denied, name)
		default:
			denied = append(denied, fmt.Sprintf("%s: %v", name, err))
		}
	}
	on := func(l coppice.ListenerSpec) (net.Listener, error) { return w.ListenSpec(ctx, l) }
	tcp, err := w.Listen("tcp", "127.0.0.1:0")
	try("an allowed port", tcp, err)
	path, err := w.Listen("unix", dir+"/s")
	try("an allowed path", path, err)
	named, err := w.Listener(ctx, "http")
	try("the tree's by name", named, err)
	other, err := w.Listen("tcp", "127.0.0.3:0")
	try("Listen", other, err)
	free, err := on(coppice.ListenerSpec{Network: "tcp", Address: "127.0.0.1:0", Options: coppice.SocketOptions{FreeBind: true}})
	try("FreeBind", free, err)
	number, err := on(coppice.ListenerSpec{FD: 3})
	try("FD", number, err)
	outside, err := w.Listen("unix", filepath.Dir(dir)+"/s")
	try("path", outside, err)
	abstract, err := w.Listen("unix", "@coppice-test-denied")
	try("abstract", abstract, err)
	pc, err := w.ListenPacket("udp", "127.0.0.1:0")
	try("ListenPacket", pc, err)
	raw, err := net.Listen("tcp", "127.0.0.4:0")
	if err != nil {
		return append(denied, err.Error())
	}
	shared, err := w.Share(ctx, coppice.ListenerSpec{Name: "mine"}, raw)
	try("Share", shared, err)
	return denied
}

// TestPoolListen: a worker gets what the tree's listeners have and what Pool.Listen allows, in each
// way that it can ask, and for anything else an error that says so; the master opens nothing, and
// logs it.
func TestPoolListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("COPPICE_TEST_DIR", dir)
	p := startTree(t, "listen rules")
	got := strings.Split(p.reported(1)[0].Addr, "\n")
	want := []string{"Listen", "FreeBind", "FD", "path", "abstract", "ListenPacket", "Share"}
	if !slices.Equal(got, want) {
		t.Errorf("denied were %q, want %q", got, want)
	}
}
