package trunk_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// authority is a CA of a test, in a directory of its own.
type authority struct{ dir, cluster string }

func newAuthority(t testing.TB, cluster string) authority {
	t.Helper()
	a := authority{t.TempDir(), cluster}
	if err := hosts.WriteCA(a.file("ca.pem"), a.file("ca.key"), cluster); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a authority) file(name string) string { return filepath.Join(a.dir, name) }

// files makes a certificate of a host, in a directory of its own, and returns its files.
func (a authority) files(t testing.TB, host string) *trunk.CertFiles {
	t.Helper()
	dir := t.TempDir()
	f := &trunk.CertFiles{Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), CA: filepath.Join(dir, "ca.pem")}
	if err := hosts.WriteCert(a.file("ca.pem"), a.file("ca.key"), f.Cert, f.Key, a.cluster, host); err != nil {
		t.Fatal(err)
	}
	copyFile(t, f.CA, a.file("ca.pem"))
	return f
}

// copyFile puts the content of files in the place of another, by a rename.
func copyFile(t testing.TB, to string, from ...string) {
	t.Helper()
	var all []byte
	for _, name := range from {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, b...)
	}
	if err := errors.Join(os.WriteFile(to+".new", all, 0o600), os.Rename(to+".new", to)); err != nil {
		t.Fatal(err)
	}
}

func with(f *trunk.CertFiles) func(*trunk.Config) {
	return func(c *trunk.Config) { c.Files, c.Self.Boot = f, trunk.NewBoot(c.Self.Name) }
}

// TestTLS: hosts with certificates of one CA get a trunk that carries frames.
func TestTLS(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newAuthority(t, "shop") // in the bubble, whose year is another
		fa, fb := ca.files(t, "a"), ca.files(t, "b")
		n := hoststest.NewNet(1)
		a, b := start(t, n, "a", with(fa)), start(t, n, "b", with(fb))
		a.SetPeers(peers("b"))
		b.SetPeers(peers("a"))
		<-a.up
		<-b.up
		sink := &collector{}
		l, _, ended := open(t, a, b, sink)
		for i := range 100 {
			if err := l.Send(t.Context(), numbered(fdipc.Data, i, i*1000)); err != nil {
				t.Fatal(err)
			}
		}
		l.End(nil)
		if e := <-ended; e.Err != nil || sink.count() != 100 {
			t.Errorf("%d frames, %v", sink.count(), e)
		}
	})
}

// TestWrongCertificates: who has no certificate, or one that is not for the host, gets no trunk;
// both sides say why, and it is a matter for a human.
func TestWrongCertificates(t *testing.T) {
	for name, row := range map[string]struct {
		other string // the host that is there instead of b, or b
		files func(t *testing.T, ca authority) *trunk.CertFiles
		want  string // at a; without TLS at the other side it is what TLS makes of that
	}{
		"of another CA": {"b", func(t *testing.T, ca authority) *trunk.CertFiles {
			f := newAuthority(t, "shop").files(t, "b")
			copyFile(t, f.CA, ca.file("ca.pem"))
			return f
		}, "unknown authority"},
		"none":            {"b", func(*testing.T, authority) *trunk.CertFiles { return nil }, "tls: "},
		"of another host": {"c", func(t *testing.T, ca authority) *trunk.CertFiles { return ca.files(t, "c") }, "the host at that address is c"},
		"expired": {"b", func(t *testing.T, ca authority) *trunk.CertFiles {
			f := ca.files(t, "b")
			<-time.After(366 * 24 * time.Hour)
			return f
		}, "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				ca := newAuthority(t, "shop")
				n := hoststest.NewNet(1)
				other := start(t, n, row.other, with(row.files(t, ca)))
				a := start(t, n, "a", with(ca.files(t, "a")))
				other.SetPeers(peers("a"))
				a.SetPeers(map[string]string{"b": row.other})
				for err := error(nil); err == nil || !strings.Contains(err.Error(), row.want); {
					if err = (<-a.failed).err; strings.Contains(err.Error(), row.want) && row.want != "tls: " && !errors.Is(err, trunk.ErrRefused) {
						t.Errorf("%v is not for a human", err)
					}
				}
				if len(a.up)+len(other.up) > 0 {
					t.Error("there is a trunk")
				}
			})
		})
	}
}

// TestCertificateOfAnother: a host must be the one in its certificate, whatever it says in its
// hello.
func TestCertificateOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newAuthority(t, "shop")
		fa, fc := ca.files(t, "a"), ca.files(t, "c")
		n := hoststest.NewNet(1)
		a := start(t, n, "a", with(fa))
		a.SetPeers(peers("a", "b"))
		raw, err := n.Dial(t.Context(), "b", "a")
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		pair, err := tls.LoadX509KeyPair(fc.Cert, fc.Key)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{pair}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}) //nolint:gosec // it is the one that lies
		write(t, c, newGreeting().frame())
		if h, body := readFrame(t, c); h[4] != 3 || !strings.Contains(string(body), "host b with a certificate of c") {
			t.Errorf("answered %d: %q", h[4], body)
		}
	})
}

// TestCertificateAtStart: a certificate of another host or cluster, or none, is found when the Mesh
// is made.
func TestCertificateAtStart(t *testing.T) {
	ca := newAuthority(t, "shop")
	good := ca.files(t, "a")
	noCA := *good
	noCA.CA = good.Key
	for name, row := range map[string]struct {
		files *trunk.CertFiles
		want  string
	}{
		"another host":    {ca.files(t, "b"), "not of coppice://shop/a but of [coppice://shop/b]"},
		"another cluster": {newAuthority(t, "shed").files(t, "a"), "not of coppice://shop/a but of [coppice://shed/a]"},
		"no CA":           {&noCA, "no certificate"},
		"no file":         {&trunk.CertFiles{Cert: good.Cert, Key: "/nowhere", CA: good.CA}, "/nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := trunk.New(trunk.Config{Cluster: "shop", Self: trunk.Host{Name: "a", Boot: trunk.NewBoot("a")}, Files: row.files})
			if !errors.Is(err, trunk.ErrConfig) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %s", err, row.want)
			}
		})
	}
}

// TestBootOfOneThatIsNotUp: a host with a certificate of its own says the boot of another one,
// which has had no trunk yet. It gets none itself, and keeps no host out.
func TestBootOfOneThatIsNotUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ca := newAuthority(t, "shop")
		n := hoststest.NewNet(1)
		a, fc := start(t, n, "a", with(ca.files(t, "a"))), ca.files(t, "c")
		a.SetPeers(peers("a", "b", "c"))
		boot := trunk.NewBoot("b")
		cert, err := tls.LoadX509KeyPair(fc.Cert, fc.Key)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := n.Dial(t.Context(), "c", "a")
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{cert}, InsecureSkipVerify: true}) //nolint:gosec // it is the liar
		defer raw.Close()
		write(t, c, greeting{1, 1, 0, 1, []string{"shop", "c", boot, "a"}}.frame())
		if h, body := readFrame(t, c); h[4] != 3 || !strings.Contains(string(body), "not of its name") {
			t.Errorf("c with the boot of b hears %d %q", h[4], body)
		}
		b := start(t, n, "b", func(cfg *trunk.Config) { cfg.Files, cfg.Self.Boot = ca.files(t, "b"), boot })
		b.SetPeers(peers("a", "b"))
		if got := (<-a.up).Peer(); got.Name != "b" || got.Boot != boot {
			t.Errorf("a trunk to %v", got)
		}
		if _, err := trunk.New(trunk.Config{Cluster: "shop", Self: trunk.Host{Name: "c", Boot: boot}, Files: fc}); !errors.Is(err, trunk.ErrConfig) {
			t.Errorf("a host with the boot of another: %v", err)
		}
	})
}

// TestRotation: certificates and the CA change while hosts run. Trunks that are up stay; the next
// handshake goes by the files of then; the log names files that cannot be used, and those of before
// stay in use.
func TestRotation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		old, fresh := newAuthority(t, "shop"), newAuthority(t, "shop")
		fa, fb, freshA, freshB := old.files(t, "a"), old.files(t, "b"), fresh.files(t, "a"), fresh.files(t, "b")
		n := hoststest.NewNet(1)
		a, b := start(t, n, "a", with(fa)), start(t, n, "b", with(fb))
		a.SetPeers(peers("b"))
		b.SetPeers(peers("a"))
		again := func() {
			<-a.up
			<-b.up
		}
		again()
		reset := func() {
			n.Reset("a", "b")
			<-a.down
			<-b.down
		}
		for _, f := range []*trunk.CertFiles{fa, fb} { // first both CAs are trusted
			copyFile(t, f.CA, old.file("ca.pem"), fresh.file("ca.pem"))
		}
		for _, row := range [][2]*trunk.CertFiles{{fa, freshA}, {fb, freshB}} { // then the hosts change, one by one
			copyFile(t, row[0].Cert, row[1].Cert)
			copyFile(t, row[0].Key, row[1].Key)
			reset()
			again()
		}
		for _, f := range []*trunk.CertFiles{fa, fb} { // then the old CA goes
			copyFile(t, f.CA, fresh.file("ca.pem"))
		}
		reset()
		again()

		copyFile(t, fa.Key, fb.Key) // of another certificate
		reset()
		again()
		found := false
		for len(a.failed) > 0 {
			err := (<-a.failed).err
			found = found || errors.Is(err, trunk.ErrConfig)
		}
		if !found {
			t.Error("nobody was told of a key that does not fit")
		}
	})
}

// overTCP starts two hosts that have a trunk over TCP, with TLS or without.
func overTCP(t testing.TB, secure bool) (hs [2]*host, addresses map[string]string) {
	t.Helper()
	ca := newAuthority(t, "shop")
	addresses = make(map[string]string)
	for i, name := range []string{"a", "b"} {
		h := &host{name: name, up: make(chan *trunk.Trunk, 10), down: make(chan told, 10), opened: make(chan *trunk.Lane, 10)}
		cfg := trunk.Config{
			Cluster: "shop", Self: trunk.Host{Name: name, Boot: trunk.NewBoot(name)},
			Open: func(l *trunk.Lane, info []byte) {
				if l.Accept(append([]byte("re: "), info...)) == nil {
					h.opened <- l
				}
			},
			Up: func(t *trunk.Trunk) { h.up <- t }, Down: func(_ *trunk.Trunk, err error) { h.down <- told{err} },
		}
		if secure {
			cfg.Files = ca.files(t, name)
		}
		m, err := trunk.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		h.Mesh, addresses[name] = m, l.Addr().String()
		go m.Serve(l) //nolint:errcheck // it ends with Close
		t.Cleanup(func() { m.Close() })
		hs[i] = h
	}
	for _, h := range hs {
		h.SetPeers(addresses)
	}
	<-hs[0].up
	<-hs[1].up
	return hs, addresses
}

// TestTCP: over TCP and TLS, in real time, a trunk comes up, carries frames, is lost, and comes
// again.
func TestTCP(t *testing.T) {
	hs, addresses := overTCP(t, true)
	for i := range 3 {
		if i > 0 {
			for _, h := range hs {
				h.SetPeers(addresses)
			}
			<-hs[0].up
			<-hs[1].up
		}
		sink := &collector{}
		l, _, ended := open(t, hs[0], hs[1], sink)
		for i := range 200 {
			if err := l.Send(t.Context(), numbered(fdipc.Data, i, i*500)); err != nil {
				t.Fatal(err)
			}
		}
		l.End(nil)
		if e := <-ended; e.Err != nil || sink.count() != 200 {
			t.Errorf("%d frames, %v", sink.count(), e)
		}
		for _, h := range hs {
			h.SetPeers(nil)
		}
		if err := (<-hs[1].down).err; !errors.Is(err, trunk.ErrLost) {
			t.Error(err)
		}
		<-hs[0].down
	}
}

// counter is a Sink that counts, and tells when it has as many as it waits for.
type counter struct {
	n, want int
	done    chan struct{}
}

func (c *counter) TrySend(*fdipc.Frame) error {
	if c.n++; c.n == c.want {
		close(c.done)
	}
	return nil
}

func (c *counter) Send(context.Context, *fdipc.Frame) error { panic("there was room") }

// BenchmarkSend: a frame of 64 bytes goes to the sink of another host, over TCP on loopback.
func BenchmarkSend(b *testing.B) {
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		b.Run(name, func(b *testing.B) {
			hs, _ := overTCP(b, secure)
			l, _, err := hs[0].Trunk("b").Open(b.Context(), nil)
			if err != nil {
				b.Fatal(err)
			}
			sink := &counter{want: b.N, done: make(chan struct{})}
			(<-hs[1].opened).Join(sink, nil)
			f := numbered(fdipc.Data, 1, 64)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				if err := l.Send(b.Context(), f); err != nil {
					b.Fatal(err)
				}
			}
			<-sink.done
		})
	}
}
