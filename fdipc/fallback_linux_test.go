package fdipc_test

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/fdipc/fdipctest"
)

// Peers that lack a feature, on either side, keep the same rules.
func TestFallback(t *testing.T) {
	same := func(c fdipc.Config) fdipc.Config { return c }
	neither := func(c fdipc.Config) fdipc.Config { return fdipc.WithoutLane(fdipc.WithoutTable(c)) }
	rows := []struct {
		name  string
		a, b  func(fdipc.Config) fdipc.Config
		lacks fdipctest.Lacks
	}{
		{"no lane at B", same, fdipc.WithoutLane, fdipctest.NoLane},
		{"no lane at A", fdipc.WithoutLane, same, fdipctest.NoLane},
		{"no table at B", same, fdipc.WithoutTable, fdipctest.NoTable},
		{"no table at A", fdipc.WithoutTable, same, fdipctest.NoTable},
		{"neither", neither, neither, fdipctest.NoTable | fdipctest.NoLane},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			fdipctest.TestConn(t, func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
				l, r, err := fdipc.Socketpair()
				if err != nil {
					t.Fatal(err)
				}
				ca, err := fdipc.New(l, row.a(a))
				if err != nil {
					t.Fatal(err)
				}
				cb, err := fdipc.New(r, row.b(b))
				if err != nil {
					t.Fatal(err)
				}
				return ca, cb
			}, row.lacks)
		})
	}
}
