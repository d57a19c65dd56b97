package netactor_test

import (
	"fmt"
	"net/netip"

	"github.com/coppice-go/coppice/netactor"
)

// premium sends the clients of a network to the worker with the most room.
type premium struct{ network netip.Prefix }

func (p premium) Pick(peer netip.AddrPort, free []netactor.Load) int {
	best := 0
	for i, l := range free {
		roomier := l.Room > free[best].Room
		if roomier == p.network.Contains(peer.Addr()) && l.Room != free[best].Room {
			best = i
		}
	}
	return best
}

// A policy of one's own sees who connects and how busy the workers are. It runs in the listener
// process: a listener has it by its Hooks.
func ExamplePicker() {
	var p netactor.Picker = premium{netip.MustParsePrefix("192.0.2.0/24")}
	free := []netactor.Load{{Open: 90, Room: 10}, {Open: 5, Room: 95}}
	fmt.Println(p.Pick(netip.MustParseAddrPort("192.0.2.7:4000"), free))
	fmt.Println(p.Pick(netip.MustParseAddrPort("203.0.113.9:4000"), free))
	// Output:
	// 1
	// 0
}

// Policies have names, for configuration files.
func ExampleParsePolicy() {
	for _, name := range []string{"least-loaded", "hash", "fastest"} {
		p, err := netactor.ParsePolicy(name)
		fmt.Println(p, err)
	}
	// Output:
	// least-loaded <nil>
	// hash <nil>
	// round-robin netactor: unknown policy "fastest"
}

// What a worker may ask the master to open, with the master's rights.
func ExampleListenRules() {
	rules := netactor.ListenRules{Allow: []netactor.ListenRule{
		{Network: "tcp", Address: "127.0.0.1", Ports: "0,8000-8099"},
		{Network: "unix", Address: "/run/app/"}, // everything below
	}}
	for _, q := range []netactor.Request{
		{Network: "tcp", Address: "127.0.0.1:8080"},
		{Network: "tcp", Address: "127.0.0.1:22"},
		{Network: "unix", Address: "/run/app/http.sock"},
		{Network: "unix", Address: "/run/other.sock"},
	} {
		fmt.Println(q.Network, q.Address, rules.Allows(q))
	}
	// Output:
	// tcp 127.0.0.1:8080 true
	// tcp 127.0.0.1:22 false
	// unix /run/app/http.sock true
	// unix /run/other.sock false
}

// Workers that ask with the same network and address share one socket; what cannot be asked for is
// named, all of it at once.
func ExampleRequest() {
	q := netactor.Request{
		Name: "http", Network: "tcp", Address: "127.0.0.1:8080",
		Policy: netactor.Hash, Peek: netactor.Peek{By: netactor.PeekCookie, Cookie: "session"},
		Limits: netactor.Limits{PerWorker: 100, Total: 300, AtLimit: netactor.CloseAtLimit},
	}
	fmt.Println(q.Validate())
	q.Peek.Cookie, q.Limits.PerWorker = "", -1
	for _, p := range q.Problems() {
		fmt.Println(p)
	}
	// Output:
	// <nil>
	// netactor: Peek {By:cookie Cookie: Bytes:0 Proxy:false Timeout:0s}: Cookie goes with By cookie, and only with it
	// netactor: Limits {PerWorker:-1 Total:300 Window:0 AtLimit:close Answer:}: a limit is negative
}
