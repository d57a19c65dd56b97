package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/actors/hosts/seats"
)

// TestHostFiles: certificates are made once, and of what there is; a seat is replaced by the calls
// of etcd, and a recovery asked for by a file.
func TestHostFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	engine, err := os.MkdirTemp("", "seat") //nolint:usetesting // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(engine) })
	ln, err := net.Listen("unix", filepath.Join(engine, seats.ClientSocket))
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 16)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b := make([]byte, 512)
		n, _ := r.Body.Read(b)
		asked <- strings.TrimPrefix(r.URL.Path, "/v3/cluster/member/") + " " + string(b[:n])
		if strings.HasSuffix(r.URL.Path, "list") {
			_, _ = w.Write([]byte(`{"members":[{"ID":"7","name":"a","peerURLs":["unix://a.peer:80"]},{"ID":"8","name":"b","peerURLs":["unix://b.peer:80"]}]}`))
			return
		}
		if strings.HasSuffix(r.URL.Path, "remove") && string(b[:n]) != `{"ID":"8"}` {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"message":"another"}`))
			return
		}
		_, _ = w.Write([]byte("{}"))
	})}
	go func() { _ = srv.Serve(ln) }() // until Close
	defer srv.Close()
	lost := t.TempDir()
	for _, row := range []struct {
		args string
		code int
		want string
	}{
		{"hosts ca shop", 0, "wrote shop.pem"},
		{"hosts ca shop", codeFailed, "shop.key: file exists"},
		{"hosts cert shop a", 0, "for host a of cluster shop"},
		{"hosts cert shop a", codeFailed, "move it away"},
		{"hosts cert --ca other shop b", codeFailed, "other.pem"},
		{"hosts cert shop a/b", codeFailed, "not a name"},
		{"hosts cert shop", codeUsage, "arg"},
		{"hosts seat replace b", codeUsage, "dir"},
		{"hosts seat replace b --dir " + engine, 0, "host b has an empty seat now"},
		{"hosts seat replace a --dir " + engine, codeFailed, "another"},
		{"hosts seat replace x --dir " + engine, codeFailed, "it has no seat; those with one in the engine now, and this host has none, which would know of others, are a, b"},
		{"hosts seat replace b --dir none", codeFailed, "no engine answers"},
		{"hosts seat recover --dir none", codeFailed, "recover the engine in none"},
		{"hosts seat recover --dir " + engine, codeFailed, "nothing is lost"},
		{"hosts seat recover --dir " + lost + " --snapshot shop.pem", codeFailed, "shop.pem: it is no snapshot"},
		{"hosts seat recover --dir " + lost, 0, "makes the engine anew"},
		{"hosts seat recover --dir " + lost, codeFailed, "already"},
	} {
		code, out, errs := ctl(t.Context(), nil, strings.Fields(row.args)...)
		if code != row.code || !strings.Contains(out+errs, row.want) {
			t.Errorf("%s: code %d, %s%s", row.args, code, out, errs)
		}
	}
	for _, want := range []string{`list {"linearizable":true}`, `remove {"ID":"8"}`, `add {"peerURLs":["unix://b.peer:80"]}`} {
		if got := <-asked; got != want {
			t.Errorf("asked %s, want %s", got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(lost, seats.RecoverFile)); err != nil {
		t.Error(err)
	}
}
