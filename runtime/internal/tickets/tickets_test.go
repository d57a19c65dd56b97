package tickets

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors"
)

// TestTicketRing: a worker that asked less than a rotation ago can read every ticket that any
// worker writes now, a ticket is valid for a week, and keys end.
func TestTicketRing(t *testing.T) {
	var r ring
	start := time.Unix(0, 0)
	first := r.at(start)[0]
	for hour := range 24 * 10 {
		now := start.Add(time.Duration(hour) * time.Hour)
		before := slices.Clone(r.at(now))
		if in := slices.Contains(before, first); in != (hour < 24*8) {
			t.Fatalf("after %d h: the first key is known: %v", hour, in)
		}
		if len(before) > kept+2 {
			t.Fatalf("after %d h: %d keys", hour, len(before))
		}
		if ahead := r; !slices.Contains(before, ahead.at(now.Add(rotation - 1))[0]) {
			t.Fatalf("after %d h: what is used a day later is not known", hour)
		}
	}
	if idle := r.at(start.Add(1000 * time.Hour)); len(idle) != kept+2 {
		t.Errorf("after weeks in which nobody asked: %d keys", len(idle))
	}
}

// handshake connects client to server and reports whether the session was resumed.
func handshake(t *testing.T, server, client *tls.Config) (resumed bool) {
	t.Helper()
	a, b := net.Pipe()
	served := make(chan error, 1)
	go func() { // ends with the pipe
		c := tls.Server(a, server)
		_, err := c.Write([]byte{1}) // a ticket of TLS 1.3 comes after the handshake, before this
		served <- err
	}()
	c := tls.Client(b, client)
	defer c.NetConn().Close()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	return c.ConnectionState().DidResume
}

// TestTicketsRotate: a worker resumes a session that another worker began, though either asked for
// the keys a while ago, and for as long as a session lasts.
func TestTicketsRotate(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	const day = 24 * time.Hour
	for _, tt := range []struct {
		name                        string
		began                       time.Duration // the session, since the master's start
		asked                       time.Duration // when its worker had asked for the keys
		again                       time.Duration // the session, with the other worker
		askedToo                    time.Duration
		restarted, doesNotResumeNow bool
	}{
		{name: "at once"},
		{name: "the one that writes has the newer keys", began: 9 * day, asked: 9 * day, again: 9 * day, askedToo: 8*day + 1},
		{name: "the one that reads has the newer keys", began: 9 * day, asked: 8*day + 1, again: 9 * day, askedToo: 9 * day},
		{name: "after a week", again: 7*day - time.Minute, askedToo: 7*day - time.Minute},
		{name: "after a week, with a key on its last day", began: 2*day - time.Minute, asked: day, again: 9*day - 2*time.Minute, askedToo: 9*day - 2*time.Minute},
		{name: "after more than a week", again: 7*day + time.Minute, askedToo: 7*day + time.Minute, doesNotResumeNow: true},
		{name: "the master has started anew", again: day, askedToo: day, restarted: true, doesNotResumeNow: true},
	} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%s/%s", tls.VersionName(version), tt.name), func(t *testing.T) {
				start := time.Now()
				var now time.Time
				clock := func() time.Time { return now }
				keys := map[time.Duration][][32]byte{}
				var r ring
				for _, at := range slices.Sorted(slices.Values([]time.Duration{0, tt.asked, tt.askedToo})) { // its clock goes one way
					keys[at] = slices.Clone(r.at(start.Add(at)))
				}
				if tt.restarted {
					keys[tt.askedToo] = new(ring).at(start)
				}
				worker := func(asked, at time.Duration) *tls.Config {
					now = start.Add(at)
					conf := &tls.Config{Certificates: certificate.TLS.Certificates, Time: clock, MaxVersion: version}
					conf.SetSessionTicketKeys(keys[asked])
					return conf
				}
				client := &tls.Config{InsecureSkipVerify: true, Time: clock, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
				if handshake(t, worker(tt.asked, tt.began), client) {
					t.Fatal("the first session is resumed")
				}
				other := worker(tt.askedToo, tt.again)
				if got := handshake(t, other, client); got == tt.doesNotResumeNow {
					t.Errorf("resumed: %v", got)
				}
				if !handshake(t, other, client) {
					t.Error("a session that began now is not resumed")
				}
			})
		}
	}
}

// TestTicketsAreNotPrinted: a printed or logged message with the keys shows none of them.
func TestTicketsAreNotPrinted(t *testing.T) {
	var r ring
	msg := keys{r.at(time.Now())}
	logged := func(make func(io.Writer, *slog.HandlerOptions) slog.Handler, v any) string {
		var b strings.Builder
		slog.New(make(&b, nil)).Info("dead letter", "message", v)
		return b.String()
	}
	text := func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewTextHandler(w, o) }
	asJSON := func(w io.Writer, o *slog.HandlerOptions) slog.Handler { return slog.NewJSONHandler(w, o) }
	for _, v := range []any{msg, &msg, []any{msg}, struct{ Message any }{msg}} {
		outs := map[string]string{"a text log": logged(text, v), "a JSON log": logged(asJSON, v)}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
			outs[verb] = fmt.Sprintf(verb, v)
		}
		for how, out := range outs {
			for _, key := range msg.Keys {
				for _, part := range []string{
					string(key[:4]), fmt.Sprintf("%x", key[:4]), fmt.Sprintf("%d %d %d", key[0], key[1], key[2]), fmt.Sprintf("%d,%d,%d", key[0], key[1], key[2]),
					fmt.Sprintf("%#x, %#x", key[0], key[1]), base64.StdEncoding.EncodeToString(key[:3]),
				} {
					if strings.Contains(out, part) {
						t.Errorf("%s of %T prints a key: %s", how, v, out)
					}
				}
			}
			if !strings.Contains(out, "session ticket keys") {
				t.Errorf("%s of %T says nothing: %s", how, v, out)
			}
		}
	}
}

// TestTicketsHandOver: the keys go on in the next image of the master, which goes on to rotate
// them.
func TestTicketsHandOver(t *testing.T) {
	before := NewActor(nil).(*keeper)
	start := time.Now()
	r := new(ring)
	r.at(start)
	r.at(start.Add(3*rotation + time.Hour))
	before.rings["web"] = r
	h, err := before.HandOver(nil)
	if err != nil {
		t.Fatal(err)
	}
	after := NewActor(nil).(*keeper)
	if err := after.TakeOver(nil, h); err != nil {
		t.Fatal(err)
	}
	now := start.Add(3*rotation + 2*time.Hour)
	if got := after.rings["web"]; got == nil || !slices.Equal(got.at(now), r.at(now)) {
		t.Error("the keys are others")
	}
	later := now.Add(rotation)
	if got := after.rings["web"].at(later); got[0] != r.keys[1] || len(got) != len(r.keys)+1 {
		t.Error("they are not rotated")
	}
	for _, bad := range []actors.Handover{{Version: stateVersion + 1, State: h.State}, {Version: stateVersion, State: []byte(`{"web":{"Keys":["eA=="]}}`)}, {Version: stateVersion}} {
		a := NewActor(nil).(*keeper)
		if err := a.TakeOver(nil, bad); err != nil || len(a.rings) != 0 {
			t.Errorf("%v: error %v, %d rings", bad, err, len(a.rings))
		}
	}
}
