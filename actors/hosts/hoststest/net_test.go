package hoststest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/hoststest"
)

// pipe returns the two ends of a connection from a to b.
func pipe(t *testing.T, n *hoststest.Net) (a, b net.Conn) {
	t.Helper()
	l := n.Listen("b")
	a, err := n.Dial(t.Context(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close(); l.Close() })
	return a, b
}

// TestCutHolds: what is written while hosts are cut off arrives when they are healed, and not
// before.
func TestCutHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := pipe(t, n)
		n.CutOneWay("a", "b")
		if _, err := a.Write([]byte("there")); err != nil {
			t.Fatal(err)
		}
		b.SetReadDeadline(time.Now().Add(time.Hour))
		buf := make([]byte, 8)
		if _, err := b.Read(buf); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read across a cut: %v", err)
		}
		b.SetReadDeadline(time.Time{})
		if _, err := b.Write([]byte("back")); err != nil {
			t.Fatal(err)
		}
		if k, err := a.Read(buf); err != nil || string(buf[:k]) != "back" {
			t.Errorf("the other way: %q, %v", buf[:k], err)
		}
		n.Heal()
		if k, err := b.Read(buf); err != nil || string(buf[:k]) != "there" {
			t.Errorf("after the heal: %q, %v", buf[:k], err)
		}
	})
}

// TestCloseInACut: the other end of a connection that is closed in a cut hears of it after the
// heal.
func TestCloseInACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := pipe(t, n)
		n.Isolate("a")
		a.Close()
		if _, err := b.Write([]byte("x")); err != nil {
			t.Errorf("write in the cut: %v", err)
		}
		n.Heal()
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("read after the heal: %v, want EOF", err)
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write after the heal: %v", err)
		}
	})
}

// TestDialInACut: a dial waits for the heal, or for its context; without a listener it is refused.
func TestDialInACut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		pipe(t, n)
		n.Cut("a", "b")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Dial(ctx, "a", "b"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial across a cut: %v", err)
		}
		time.AfterFunc(time.Second, n.Heal)
		c, err := n.Dial(t.Context(), "a", "b")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if _, err := n.Dial(t.Context(), "a", "c"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("dial to nobody: %v", err)
		}
	})
}

// TestBytes: delays and short reads change no byte and no order; a connection breaks after its
// bytes.
func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := hoststest.NewNet(7)
		n.Delay(time.Second)
		n.Chop(50)
		n.BreakAfter(10_000)
		a, b := pipe(t, n)
		sent := make([]byte, 20_000)
		for i := range sent {
			sent[i] = byte(i * i >> 3)
		}
		go func() {
			for rest := sent; len(rest) > 0; rest = rest[400:] {
				if _, err := a.Write(rest[:400]); err != nil {
					return
				}
			}
		}()
		got, err := io.ReadAll(b)
		if !errors.Is(err, syscall.ECONNRESET) || !bytes.Equal(got, sent[:10_000]) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		synctest.Wait()
		a.Close()
		b.Close()
		if k := n.Conns(); k != 0 {
			t.Errorf("%d connections are left", k)
		}
	})
}
