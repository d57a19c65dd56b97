//go:build linux

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

const badVar = "COPPICE_TEST_ETCD_BAD" // a row of badInputs

// badInput is a host that is set up wrongly.
type badInput struct {
	prepare func(dir string) error  // of the files
	config  func(cfg *hosts.Config) // in the program
	says    string                  // a line of the log
	refused bool                    // the program does not start
}

func nothing(string) error { return nil }
func asItIs(*hosts.Config) {}

var badInputs = map[string]badInput{
	"two seats": {nothing, func(cfg *hosts.Config) {
		cfg.Engine = etcd.Embedded{Dir: cfg.Engine.(etcd.Embedded).Dir, Seats: []string{"a", "b"}}
	}, `Seats: two: when either fails`, true},
	"the directory is a file": {func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "a"), nil, 0o600)
	}, asItIs, `Embedded.Dir: mkdir .*/a: not a directory`, false},
	"the directory of another host": {func(dir string) error {
		at := filepath.Join(dir, "a")
		return errors.Join(os.Mkdir(at, 0o700), os.WriteFile(filepath.Join(at, "seat.json"), []byte(`{"host":"z"}`), 0o600))
	}, asItIs, `/a has the seat of host ."z.", not of ."a`, false},
	"a file of the seat that cannot be read": {func(dir string) error {
		at := filepath.Join(dir, "a")
		return errors.Join(os.Mkdir(at, 0o700), os.WriteFile(filepath.Join(at, "seat.json"), []byte(`{`), 0o600))
	}, asItIs, `Embedded.Dir: .*/a/seat.json: unexpected end`, false},
	"peers that do not resolve": {nothing, func(cfg *hosts.Config) {
		cfg.Peers = hosts.DNS("_coppice._tcp.nowhere.invalid")
	}, `peers that cannot be used; .*nowhere.invalid`, false},
	"a file of peers that is not there": {nothing, func(cfg *hosts.Config) {
		cfg.Peers = hosts.PeersFile("/nowhere/hosts")
	}, `peers that cannot be used; .*/nowhere/hosts`, false},
	"the certificate of another host": {func(dir string) error {
		at := func(file string) string { return filepath.Join(dir, file) }
		return errors.Join(os.Rename(at("b.pem"), at("a.pem")), os.Rename(at("b.key"), at("a.key")))
	}, asItIs, `/a.pem: the certificate is not of coppice://shop/a but of .*shop/b`, true},
	"a key that is not the certificate's": {func(dir string) error {
		return os.Rename(filepath.Join(dir, "b.key"), filepath.Join(dir, "a.key"))
	}, asItIs, `/a.key: tls: private key does not match`, true},
	"no server at the engine's address": {nothing, func(cfg *hosts.Config) {
		cfg.Engine = etcd.External{Endpoints: []string{"http://127.0.0.1:1"}}
	}, `no session with the engine: .*127.0.0.1:1: connect: connection refused`, false},
}

func upAndWait(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	fmt.Println("a worker is up")
	<-ctx.Done()
	return nil
}

// TestBadInput: a host that is set up wrongly says what is wrong and where; its own children start
// at once all the same, but for a configuration that is refused. TestSeatReplaced has a directory
// that is lost, and one of another engine.
func TestBadInput(t *testing.T) {
	if testing.Short() {
		t.Skip("starts nine trees")
	}
	for name, row := range badInputs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newFleet(t)
			if err := row.prepare(m.dir); err != nil {
				t.Fatal(err)
			}
			p := runtimetest.Start(t, []string{treeVar + "=a", netVar + "=" + loopback(), dirVar + "=" + m.dir, soloVar + "=1", badVar + "=" + name, "COPPICE_CONTROL=off"})
			p.Await(row.says)
			if row.refused {
				if p.Wait() == 0 {
					t.Error("the program has ended well")
				}
				return
			}
			p.Await("a worker is up")
		})
	}
}
