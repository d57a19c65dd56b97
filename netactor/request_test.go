package netactor

import (
	"io/fs"
	"strings"
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
		{"answer without a limit", Request{Network: "tcp", Limits: Limits{AtLimit: CloseAtLimit}}, "needs PerWorker"},
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

func TestPolicyText(t *testing.T) {
	for p := range Policies {
		got, err := ParsePolicy(p.String())
		if got != p || err != nil {
			t.Errorf("%s: %v, %v", p, got, err)
		}
	}
	if _, err := ParsePolicy("fair"); err == nil {
		t.Error("unknown policy parsed")
	}
}
