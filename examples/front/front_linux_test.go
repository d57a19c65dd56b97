package main

import (
	"crypto/tls"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

func start(t *testing.T, args ...string) *runtimetest.Program {
	if os.Geteuid() != 0 {
		t.Skip("only root may give the workers another user")
	}
	if info, _ := debug.ReadBuildInfo(); info == nil || slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "1"}) {
		t.Skip("with cgo the program needs libraries, which are outside its walls: CGO_ENABLED=0 go test")
	}
	dir := filepath.Join(t.TempDir(), "key")
	return runtimetest.Start(t, nil, append([]string{"-tls", "127.0.0.1:0", "-http", "127.0.0.1:0", "-dir", dir}, args...)...)
}

// TestServes: workers without rights serve HTTPS.
func TestServes(t *testing.T) {
	p := start(t)
	addr := p.Await(`^https (.*)`)[1]
	client := &http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	resp, err := client.Get("https://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(b), ", in no network") || strings.Contains(string(b), "user 0,") {
		t.Errorf("answer %q, %v", b, err)
	}
}

// TestAttack: a hostile worker succeeds with nothing.
func TestAttack(t *testing.T) {
	p := start(t, "-attack")
	p.Await(`take all descriptors`)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	tried := regexp.MustCompile(`^hostile/0\S* ?\S*\| `)
	n := 0
	for _, l := range p.Lines() {
		if tried.MatchString(l) {
			n++
		}
		if strings.Contains(l, "IT SUCCEEDED") {
			t.Error(l)
		}
	}
	if n < 12 {
		t.Errorf("%d attacks:\n%s", n, strings.Join(p.Lines(), "\n"))
	}
}
