package hosts_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/actors/hosts"
)

// TestCertificates: keys are for their owner alone, no file is written over, and names must be
// names. That hosts take what is made, TestTLS of internal/trunk shows.
func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	if err := hosts.WriteCA(in("ca.pem"), in("ca.key"), "shop"); err != nil {
		t.Fatal(err)
	}
	if err := hosts.WriteCert(in("ca.pem"), in("ca.key"), in("a.pem"), in("a.key"), "shop", "a"); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ca.key", "a.key"} {
		if info, err := os.Stat(in(key)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", key, info.Mode(), err)
		}
	}
	before, err := os.ReadFile(in("a.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := hosts.WriteCert(in("ca.pem"), in("ca.key"), in("a.pem"), in("a.key"), "shop", "a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one: %v", err)
	}
	if err := hosts.WriteCert(in("ca.pem"), in("ca.key"), in("a.pem"), in("b.key"), "shop", "b"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second certificate: %v", err)
	}
	if _, err := os.Stat(in("b.key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the key of no certificate is left: %v", err)
	}
	if after, err := os.ReadFile(in("a.key")); err != nil || string(after) != string(before) {
		t.Error("the key was written over")
	}
	for _, name := range []string{"", "a b", "a/b", "a?b"} {
		if err := hosts.WriteCA(in("x.pem"), in("x.key"), name); err == nil || !strings.Contains(err.Error(), "not a name") {
			t.Errorf("cluster %q: %v", name, err)
		}
	}
	if err := hosts.WriteCert(in("a.pem"), in("ca.key"), in("y.pem"), in("y.key"), "shop", "y"); err == nil {
		t.Error("a CA of two halves is taken")
	}
}
