package fdipctest_test

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/fdipc/fdipctest"
)

func TestPipe(t *testing.T) {
	fdipctest.TestConn(t, func(_ testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) { return fdipc.Pipe(a, b) })
}

func TestLink(t *testing.T) {
	fdipctest.TestConn(t, func(_ testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
		return new(fdipctest.Link).Join(a, b)
	})
}

func TestSocket(t *testing.T) {
	l, r, err := fdipc.Socketpair()
	if err != nil {
		t.Skip(err)
	}
	l.Close()
	r.Close()
	fdipctest.TestConn(t, func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
		l, r, err := fdipc.Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		ca, err := fdipc.New(l, a)
		if err != nil {
			t.Fatal(err)
		}
		cb, err := fdipc.New(r, b)
		if err != nil {
			t.Fatal(err)
		}
		return ca, cb
	})
}
