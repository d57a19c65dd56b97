package wire

import (
	"context"
	"errors"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/netactor"
)

// TestUnresolved: the master takes no address that is not written as the kernel reads it.
func TestUnresolved(t *testing.T) {
	for _, r := range []netactor.Request{
		{Network: "unix", Address: "relative"},
		{Network: "unix", Address: "/a/../b"},
		{Network: "unix", Address: "/a//b"},
		{Network: "unix", Address: "/a\x00b"},
		{Network: "tcp", Address: "127.0.0.1:80"},
		{Network: "tcp6", Address: "127.0.0.1:80"},
		{Network: "tcp6", Address: "[::ffff:127.0.0.1]:80"},
		{Network: "tcp6", Address: "[fe80::1%aaaaaaaaaaaaaaaaaaaa]:80"},
		{Network: "tcp4", Address: "localhost:80"},
	} {
		if _, err := DecodeRequest(Encode(r)); err == nil {
			t.Errorf("%s %q was taken", r.Network, r.Address)
		}
	}
	for _, r := range []netactor.Request{{Network: "unix", Address: "/a"}, {Network: "tcp", Address: ":80"}, {Network: "udp", Address: "[::1%1]:80"}, {Network: "tcp4", Address: "127.0.0.1:80"}} {
		r, err := Resolve(context.Background(), r)
		if err == nil {
			_, err = DecodeRequest(Encode(r))
		}
		if err != nil {
			t.Errorf("%s %q: %v", r.Network, r.Address, err)
		}
	}
}

func TestRequestResolve(t *testing.T) {
	wd, _ := os.Getwd()
	for _, tt := range []struct{ network, address, wantNetwork, want string }{
		{"tcp", "127.0.0.1:80", "tcp4", "127.0.0.1:80"},
		{"tcp", "localhost:80", "tcp4", "127.0.0.1:80"}, // shared with the above, as in Node
		{"tcp", "127.0.0.1:http", "tcp4", "127.0.0.1:80"},
		{"tcp", ":80", "tcp", "[::]:80"},
		{"tcp", "0.0.0.0:80", "tcp", "[::]:80"}, // one socket for net.Listen too
		{"tcp", "[::]:80", "tcp", "[::]:80"},
		{"tcp4", ":80", "tcp4", "0.0.0.0:80"},
		{"tcp4", "0.0.0.0:80", "tcp4", "0.0.0.0:80"},
		{"tcp6", ":80", "tcp6", "[::]:80"},
		{"tcp", "[::1]:80", "tcp6", "[::1]:80"},
		{"tcp", "", "tcp", "[::]:0"}, // N42
		{"udp", "localhost:domain", "udp4", "127.0.0.1:53"},
		{"udp", "0.0.0.0:80", "udp", "[::]:80"},
		{"udp4", ":80", "udp4", "0.0.0.0:80"},
		{"udp6", ":80", "udp6", "[::]:80"},
		{"udp", "224.0.0.251:5353", "udp4", "224.0.0.251:5353"},
		{"unixgram", "x.sock", "unixgram", wd + "/x.sock"},
		{"unixpacket", "x.sock", "unixpacket", wd + "/x.sock"},
		{"unix", "x.sock", "unix", wd + "/x.sock"},
		{"unix", "@x", "unix", "@x"},
	} {
		r, err := Resolve(context.Background(), netactor.Request{Network: tt.network, Address: tt.address})
		if err != nil || r.Network != tt.wantNetwork || r.Address != tt.want {
			t.Errorf("%s %q: %s %q, %v; want %s %q", tt.network, tt.address, r.Network, r.Address, err, tt.wantNetwork, tt.want)
		}
	}
}

// TestResolveErrors compares the errors with those of net.Listen.
func TestResolveErrors(t *testing.T) {
	for _, tt := range []struct{ network, address string }{
		{"tcp", "noport"}, {"tcp", "127.0.0.1:bad port"}, {"tcp4", "[::1]:80"}, {"tcp", "127.0.0.1:99999"}, {"bogus", ":80"},
	} {
		_, want := net.Listen(tt.network, tt.address)
		_, got := Resolve(context.Background(), netactor.Request{Network: tt.network, Address: tt.address})
		if want == nil || got == nil {
			t.Fatalf("%s %q: got %v, net.Listen %v", tt.network, tt.address, got, want)
		}
		g, ok := errors.AsType[*net.OpError](got)
		w, _ := errors.AsType[*net.OpError](want)
		if !ok || g.Op != w.Op || g.Net != w.Net || reflect.TypeOf(g.Err) != reflect.TypeOf(w.Err) {
			t.Errorf("%s %q:\n got %v (%T)\nwant %v (%T)", tt.network, tt.address, got, g.Err, want, w.Err)
		}
	}
}

func TestReplyError(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.EADDRINUSE, syscall.EACCES, syscall.EINVAL} {
		r := Failed(os.NewSyscallError("bind", errno))
		var back ListenReply
		if err := Decode(Encode(r), &back); err != nil {
			t.Fatal(err)
		}
		err := back.Err("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80})
		op, ok := errors.AsType[*net.OpError](err)
		if !ok || op.Op != "listen" || !errors.Is(err, errno) {
			t.Fatalf("%#v", err)
		}
		if sys, ok := errors.AsType[*os.SyscallError](err); !ok || sys.Syscall != "bind" {
			t.Errorf("%#v", err)
		}
		if want := "listen tcp 127.0.0.1:80: bind: " + errno.Error(); err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
	if err := (ListenReply{}).Err("tcp", nil); err != nil {
		t.Error(err)
	}
	if r := Failed(errors.New("anything else")); r.Errno != int(syscall.EINVAL) {
		t.Errorf("%+v", r)
	}
}

// FuzzDecodeRequest: any payload of a worker is an error, or a request that is valid, resolved, and
// the same when it is encoded again. It may then be too long, as JSON may use six bytes for one.
func FuzzDecodeRequest(f *testing.F) {
	for _, r := range []netactor.Request{
		{Network: "tcp4", Address: "127.0.0.1:80", Backlog: 5, Policy: netactor.LeastLoaded, Limits: netactor.Limits{PerWorker: 3}},
		{Network: "unix", Address: "/tmp/x", Mode: 0o600, Name: "x", Ordinal: 2},
		{FD: 7},
		{Name: "http"},
		{Network: "tcp", Address: "[::]:0", Policy: netactor.Custom, Functions: "p"},
	} {
		f.Add(Encode(r))
	}
	f.Add([]byte(`{"Network":"tcp","Address":"noport","Policy":"nothing"}`))
	f.Add([]byte(`[1`))
	f.Add([]byte(`{"Network":"unix","Address":"/` + strings.Repeat("<", MaxControl/6) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if r.Network == "" && r.Name == "" && r.FD == 0 {
			t.Fatalf("means nothing: %+v", r)
		}
		if again := Encode(r); len(again) <= MaxControl {
			if back, err := DecodeRequest(again); err != nil || back != r {
				t.Fatalf("%+v, then %+v, %v", r, back, err)
			}
		}
		_ = Key(r)
		var rep ListenReply
		_ = Decode(b, &rep)
		_, _ = rep.Addr()
	})
}
