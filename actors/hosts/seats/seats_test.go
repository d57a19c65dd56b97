package seats_test

import (
	"errors"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"testing"

	"github.com/coppice-go/coppice/actors/hosts/seats"
)

// engineOf answers each call of an engine's members by the next of answers; those after the last
// are refused. It returns the directory, and what was called.
func engineOf(t *testing.T, answers ...string) (dir string, called *[]string) {
	t.Helper()
	dir, called = t.TempDir(), new([]string)
	l, err := net.Listen("unix", filepath.Join(dir, seats.ClientSocket))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := `{"message":"no more calls were expected"}`
		if len(*called) < len(answers) {
			answer = answers[len(*called)]
		}
		*called = append(*called, filepath.Base(r.URL.Path))
		switch {
		case answer == leaderChanged:
			w.WriteHeader(http.StatusServiceUnavailable)
		case len(*called) > len(answers):
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write([]byte(answer))
	})}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return dir, called
}

const leaderChanged = `{"message":"etcdserver: leader changed"}`

// TestReplaceWhileLeadersChange: an engine whose leader changes may have done what it was asked for
// or not, so a replacement asks again who sits there, and goes on from that.
func TestReplaceWhileLeadersChange(t *testing.T) {
	both := `{"members":[{"ID":"1","name":"a","peerURLs":["` + seats.PeerURL("a") + `"]},{"ID":"2","name":"b","peerURLs":["` + seats.PeerURL("b") + `"]}]}`
	one := `{"members":[{"ID":"1","name":"a","peerURLs":["` + seats.PeerURL("a") + `"]},{"ID":"3","name":"c","peerURLs":["` + seats.PeerURL("c") + `"]}]}`
	dir, called := engineOf(t, leaderChanged, both, leaderChanged, one, leaderChanged, one, `{}`)
	if err := seats.Replace(t.Context(), dir, "b"); err != nil {
		t.Error(err)
	}
	if want := []string{"list", "list", "remove", "list", "add", "list", "add"}; !slices.Equal(*called, want) {
		t.Errorf("called %q, not %q", *called, want)
	}
}

// TestReplaceRefused: what the engine refuses for good is an error at once.
func TestReplaceRefused(t *testing.T) {
	dir, called := engineOf(t)
	if err := seats.Replace(t.Context(), dir, "b"); err == nil || len(*called) != 1 {
		t.Errorf("%v after the calls %q", err, *called)
	}
}
