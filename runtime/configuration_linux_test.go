package coppice

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// TestShortOfConfiguration: a master without room for the file of a long configuration gets the
// error before it forks, where the start is tried again.
func TestShortOfConfiguration(t *testing.T) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	gen := newGeneration(1, nil, make([]byte, inlineConfig+1))
	c := newPoolDriver(poolParts{generations: &generations{current: gen}, children: &children{}}, workerPool, "web", Pool{Size: 1})
	w := newPoolWorker(c, pool.Effect{})
	w.hello = childproto.Hello{Name: "web/0", Config: gen.config}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	err := w.tryLaunch(t.Context())
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if !isShort(err) || !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "configuration of ") {
		t.Errorf("error %v", err)
	}
}
