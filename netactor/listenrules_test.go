package netactor

import (
	"strings"
	"testing"
)

func TestListenRules(t *testing.T) {
	for _, tt := range []struct {
		name string
		rule ListenRule
		r    Request
		want bool
	}{
		{"port in the list", ListenRule{Network: "tcp", Ports: "443,8000-8099"}, Request{Network: "tcp", Address: "[::]:8099"}, true},
		{"port beside the list", ListenRule{Network: "tcp", Ports: "443,8000-8099"}, Request{Network: "tcp", Address: "[::]:8100"}, false},
		{"port of the kernel's choice is not any port", ListenRule{Network: "tcp", Ports: "1-65535"}, Request{Network: "tcp", Address: "[::]:0"}, false},
		{"port of the kernel's choice", ListenRule{Network: "tcp", Ports: "0"}, Request{Network: "tcp", Address: "[::]:0"}, true},
		{"tcp is both", ListenRule{Network: "tcp"}, Request{Network: "tcp6", Address: "[::1]:80"}, true},
		{"tcp4 is one", ListenRule{Network: "tcp4"}, Request{Network: "tcp6", Address: "[::1]:80"}, false},
		{"tcp is not udp", ListenRule{Network: "tcp"}, Request{Network: "udp4", Address: "127.0.0.1:80"}, false},
		{"address", ListenRule{Network: "tcp", Address: "127.0.0.1"}, Request{Network: "tcp4", Address: "127.0.0.1:80"}, true},
		{"another address", ListenRule{Network: "tcp", Address: "127.0.0.1"}, Request{Network: "tcp4", Address: "127.0.0.2:80"}, false},
		{"range", ListenRule{Network: "tcp", Address: "10.1.2.3/8"}, Request{Network: "tcp4", Address: "10.200.0.1:80"}, true},
		{"all addresses are in no range", ListenRule{Network: "tcp", Address: "10.0.0.0/8"}, Request{Network: "tcp", Address: "[::]:80"}, false},
		{"all addresses by name", ListenRule{Network: "tcp", Address: "0.0.0.0"}, Request{Network: "tcp", Address: "[::]:80"}, true},
		{"one address is not all", ListenRule{Network: "tcp", Address: "0.0.0.0"}, Request{Network: "tcp4", Address: "10.0.0.1:80"}, false},
		{"zone", ListenRule{Network: "tcp6", Address: "fe80::/10"}, Request{Network: "tcp6", Address: "[fe80::1%eth0]:80"}, true},
		{"mapped address", ListenRule{Network: "tcp6", Address: "::/0"}, Request{Network: "tcp6", Address: "[::ffff:127.0.0.1]:80"}, false},
		{"path", ListenRule{Network: "unix", Address: "/run/app.sock"}, Request{Network: "unix", Address: "/run/app.sock"}, true},
		{"path is no prefix", ListenRule{Network: "unix", Address: "/run/app"}, Request{Network: "unix", Address: "/run/app/x"}, false},
		{"path below", ListenRule{Network: "unix", Address: "/run/app/"}, Request{Network: "unix", Address: "/run/app/a/x"}, true},
		{"path beside", ListenRule{Network: "unix", Address: "/run/app/"}, Request{Network: "unix", Address: "/run/apple"}, false},
		{"path that leads out", ListenRule{Network: "unix", Address: "/run/app/"}, Request{Network: "unix", Address: "/run/app/../x"}, false},
		{"path with a zero", ListenRule{Network: "unix"}, Request{Network: "unix", Address: "/run/app/x\x00y"}, false},
		{"abstract", ListenRule{Network: "unix", Address: "@app/"}, Request{Network: "unix", Address: "@app/1"}, true},
		{"another kind of Unix socket", ListenRule{Network: "unix"}, Request{Network: "unixgram", Address: "/run/x"}, false},
		{"descriptor", ListenRule{FD: 7}, Request{FD: 7}, true},
		{"another descriptor", ListenRule{FD: 7}, Request{FD: 8}, false},
		{"a descriptor by an address", ListenRule{Network: "tcp"}, Request{FD: 7}, false},
		{"FreeBind", ListenRule{Network: "tcp"}, Request{Network: "tcp4", Address: "10.0.0.1:80", Options: SocketOptions{FreeBind: true}}, false},
		{"Transparent", ListenRule{Network: "udp"}, Request{Network: "udp4", Address: "10.0.0.1:80", Options: SocketOptions{Transparent: true}}, false},
	} {
		rs := ListenRules{Allow: []ListenRule{tt.rule}}
		if err := rs.Validate(); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if got := rs.Allows(tt.r); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	for _, tt := range []struct {
		rs   ListenRules
		want string
	}{
		{ListenRules{Any: true, None: true}, "more than one"},
		{ListenRules{None: true, Allow: []ListenRule{{FD: 3}}}, "more than one"},
		{ListenRules{Allow: []ListenRule{{}}}, `Allow[0] Network ""`},
		{ListenRules{Allow: []ListenRule{{Network: "tcp"}, {Network: "tcp", Address: "localhost"}}}, `Allow[1] Address "localhost"`},
		{ListenRules{Allow: []ListenRule{{Network: "tcp", Ports: "9-8"}}}, `"9-8"`},
		{ListenRules{Allow: []ListenRule{{Network: "tcp", Ports: "70000"}}}, `"70000"`},
		{ListenRules{Allow: []ListenRule{{Network: "unix", Address: "run/app"}}}, `Address "run/app"`},
		{ListenRules{Allow: []ListenRule{{Network: "unix", Address: "/x", Ports: "1"}}}, `Ports "1"`},
		{ListenRules{Allow: []ListenRule{{FD: 3, Network: "tcp"}}}, "FD 3"},
	} {
		if err := tt.rs.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %s", tt.rs, err, tt.want)
		}
	}
}
