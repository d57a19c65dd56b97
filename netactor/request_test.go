package netactor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"reflect"
	"strings"
	"syscall"
	"testing"
)

func TestRequestValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		r    Request
		want string // part of the error; empty is valid
	}{
		{"tcp", Request{Network: "tcp", Address: ":80"}, ""},
		{"name alone", Request{Name: "http"}, ""},
		{"fd", Request{FD: 7}, ""},
		{"nothing", Request{}, "unknown network"},
		{"long name", Request{Name: strings.Repeat("n", 256)}, "Name of 256 bytes: is longer than 255"},
		{"long path", Request{Network: "unix", Address: "/" + strings.Repeat("n", 4096)}, "Address of 4097 bytes: is longer than 4096"},
		{"longest", Request{Name: strings.Repeat("<", 255), Network: "unix", Address: strings.Repeat("<", 4096), Limits: Limits{Total: 1, AtLimit: AnswerAtLimit, Answer: strings.Repeat("<", 4096)}}, ""},
		{"udp", Request{Network: "udp", Address: ":80"}, ""},
		{"packet socket by name", Request{Name: "dns", Packet: true}, ""},
		{"unixgram", Request{Network: "unixgram", Address: "x", Mode: 0o600}, ""},
		{"unixpacket", Request{Network: "unixpacket", Address: "x", Backlog: 1, Limits: Limits{Total: 1}}, ""},
		{"raw IP", Request{Network: "ip:1", Address: "127.0.0.1"}, "unknown network ip:1"},
		{"packet stated twice", Request{Network: "udp", Address: ":80", Packet: true}, "Packet true"},
		{"backlog of a packet socket", Request{Network: "udp", Backlog: 1}, "Backlog 1"},
		{"limits of a packet socket", Request{Network: "udp", Limits: Limits{Total: 1}}, "need connections"},
		{"picker of a packet socket", Request{Network: "udp", Policy: Custom, Functions: "x"}, "Policy custom"},
		{"reuseport of a datagram path", Request{Network: "unixgram", Address: "/x", Policy: ReusePort}, "operation not supported"},
		{"unixgram without a path", Request{Network: "unixgram"}, "Address"},
		{"fd and address", Request{FD: 7, Network: "tcp", Address: ":80"}, "FD 7"},
		{"negative fd", Request{FD: -1}, "FD -1"},
		{"backlog", Request{Network: "tcp", Backlog: -2}, "Backlog -2"},
		{"mode of tcp", Request{Network: "tcp", Mode: 0o600}, "Mode"},
		{"mode bits", Request{Network: "unix", Address: "x", Mode: fs.ModeSetuid}, "Mode"},
		{"unix without a path", Request{Network: "unix"}, "Address"},
		{"policy", Request{Network: "tcp", Policy: 99}, "Policy policy(99)"},
		{"reuseport of a path", Request{Network: "unix", Address: "/x", Policy: ReusePort}, "operation not supported"},
		{"answer without a limit", Request{Network: "tcp", Limits: Limits{AtLimit: CloseAtLimit}}, "without a limit"},
		{"no answer", Request{Network: "tcp", Limits: Limits{Total: 1, AtLimit: AnswerAtLimit}}, "Answer goes with"},
		{"long answer", Request{Network: "tcp", Limits: Limits{Total: 1, AtLimit: AnswerAtLimit, Answer: strings.Repeat("x", maxAnswer+1)}}, "longer than"},
		{"limits that nobody keeps", Request{Network: "tcp", Policy: Shared, Limits: Limits{Total: 1}}, "policy that dispatches"},
		{"wait for an address", Request{Network: "tcp", Wait: true}, "Name alone"},
		{"policy without picker", Request{Network: "tcp", Policy: Custom}, `Functions ""`},
		{"limits", Request{Network: "tcp", Limits: Limits{Window: MaxWindow + 1}}, "Limits"},
		{"two at once", Request{Network: "tcp", Backlog: -1, Ordinal: -1}, "Ordinal -1"},
	} {
		err := tt.r.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
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
		r, err := resolve(context.Background(), Request{Network: tt.network, Address: tt.address})
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
		_, got := resolve(context.Background(), Request{Network: tt.network, Address: tt.address})
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
		r := failed(os.NewSyscallError("bind", errno))
		var back reply
		if err := decode(encode(r), &back); err != nil {
			t.Fatal(err)
		}
		err := back.err("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80})
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
	if err := (reply{}).err("tcp", nil); err != nil {
		t.Error(err)
	}
	if r := failed(errors.New("anything else")); r.Errno != int(syscall.EINVAL) {
		t.Errorf("%+v", r)
	}
}

func TestPolicyText(t *testing.T) {
	for p := range policies {
		got, err := ParsePolicy(p.String())
		if got != p || err != nil {
			t.Errorf("%s: %v, %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("fair"); err == nil {
		t.Error("unknown policy parsed")
	}
}

// FuzzDecodeRequest: whatever a worker sends is an error, or a request that is
// valid, resolved, and the same when it is encoded again; which may be too long then, as JSON has six bytes for
// some of one.
func FuzzDecodeRequest(f *testing.F) {
	for _, r := range []Request{
		{Network: "tcp4", Address: "127.0.0.1:80", Backlog: 5, Policy: LeastLoaded, Limits: Limits{PerWorker: 3}},
		{Network: "unix", Address: "/tmp/x", Mode: 0o600, Name: "x", Ordinal: 2},
		{FD: 7},
		{Name: "http"},
		{Network: "tcp", Address: "[::]:0", Policy: Custom, Functions: "p"},
	} {
		f.Add(encode(r))
	}
	f.Add([]byte(`{"Network":"tcp","Address":"noport","Policy":"nothing"}`))
	f.Add([]byte(`[1`))
	f.Add([]byte(`{"Network":"unix","Address":"/` + strings.Repeat("<", maxControl/6) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRequest(b)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if r.Network == "" && r.Name == "" && r.FD == 0 {
			t.Fatalf("means nothing: %+v", r)
		}
		if again := encode(r); len(again) <= maxControl {
			if back, err := decodeRequest(again); err != nil || back != r {
				t.Fatalf("%+v, then %+v, %v", r, back, err)
			}
		}
		_ = requestKey(r)
		var rep reply
		_ = decode(b, &rep)
		_, _ = rep.addr()
	})
}
