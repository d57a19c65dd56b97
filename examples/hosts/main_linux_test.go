package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestMoves: each of three hosts sells from one stock. When the host that has it is killed, the
// others sell on from another, an order that is asked for again gets the piece that it had, and the
// host sells again when it is started again.
func TestMoves(t *testing.T) {
	n := os.Getpid()
	*network = fmt.Sprintf("127.%d.%d", 128+n>>8&127, n&255) // no other test has it
	d, err := os.MkdirTemp("", "shop")                       // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(d) })
	programs := map[string]*runtimetest.Program{}
	start := func(name string) {
		programs[name] = runtimetest.Start(t, []string{"COPPICE_CONTROL=off"}, "-host", name, "-net", *network, "-dir", d, "-lease", "1s")
	}
	c := &crowd{accepted: map[string]bool{}}
	orders := 0
	sells := func(name, former string) (owner string) {
		t.Helper()
		runtimetest.Eventually(t, name+" sells", func() bool {
			orders++
			owner = c.post(name, fmt.Sprint("order", orders))
			return owner != "" && owner != former
		})
		return owner
	}
	for _, name := range seats {
		start(name)
	}
	var owner string
	for _, name := range seats {
		owner = sells(name, "")
	}
	programs[owner].Signal(syscall.SIGKILL)
	programs[owner].Wait()
	for _, name := range seats {
		if name != owner {
			sells(name, owner)
			c.post(name, fmt.Sprint("order", orders)) // again
		}
	}
	start(owner)
	sells(owner, "")
	for _, p := range programs {
		p.Signal(syscall.SIGTERM)
	}
	for name, p := range programs {
		if code := p.Wait(); code != 0 {
			t.Errorf("host %s: exit code %d", name, code)
		}
	}
	l, err := openLedger(filepath.Join(d, "ledger"), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if l.double > 0 || len(l.sold) < len(c.accepted) {
		t.Errorf("%d sold twice; %d sold, %d accepted", l.double, len(l.sold), len(c.accepted))
	}
	for order := range c.accepted {
		if l.sold[order] == 0 {
			t.Errorf("%s is lost", order)
		}
	}
}

// TestLedger: what a holder writes after a later one has begun does not count, and neither is wrong
// about what does.
func TestLedger(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger")
	open := func(fence uint64) *ledger {
		t.Helper()
		l, err := openLedger(path, fence)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.close)
		return l
	}
	first := open(5)
	if err := first.add("one", 1); err != nil {
		t.Fatal(err)
	}
	second := open(9)
	if err := first.add("two", 2); !errors.Is(err, hosts.ErrStale) {
		t.Errorf("the former holder: %v, want ErrStale", err)
	}
	if err := second.add("three", 2); err != nil {
		t.Error(err)
	}
	if _, err := openLedger(path, 8); !errors.Is(err, hosts.ErrStale) {
		t.Errorf("a former holder that begins: %v, want ErrStale", err)
	}
	for _, l := range []*ledger{second, open(0)} {
		if err := l.read(); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(l.sold, l.void, l.double); got != "map[one:1 three:2] 2 0" {
			t.Errorf("the ledger is %s", got)
		}
	}
}

// TestChaos: no order is lost or sold twice while the host that has the stock is killed, cut off
// and frozen. It takes a minute: COPPICE_SOAK=1.
func TestChaos(t *testing.T) {
	if os.Getenv("COPPICE_SOAK") == "" {
		t.Skip("takes a minute: COPPICE_SOAK=1")
	}
	for _, line := range examplestest.Chaos(t) {
		if strings.HasPrefix(line, "the ledger: ") {
			t.Log(line)
		}
	}
}
