// Package hosts joins trees on several hosts. One Config says how:
//
//	cfg := &hosts.Config{
//		Cluster: "shop", Name: "a", Listen: "10.0.0.1:7400",
//		Peers:  hosts.Static{"a": "10.0.0.1:7400", "b": "10.0.0.2:7400", "c": "10.0.0.3:7400"},
//		TLS:    hosts.TLS{Cert: "a.pem", Key: "a.key", CA: "shop.pem"},
//		Engine: etcd.Embedded{Dir: "/var/lib/shop", Seats: []string{"a", "b", "c"}},
//	}
//	coppice.Main(coppice.Config{Hosts: cfg, Children: []coppice.ChildSpec{
//		cfg.Singleton(hosts.Singleton{Name: "billing"}, billing), // runs on one host of the cluster
//		…
//	}})
//
// Then an actor of another host is asked, sent to and monitored by the calls of package actors, by
// its PID, by its name in the tree of its host, or by a name of the cluster:
//
//	answer, err := actors.Ask[string](ctx, s, s.LookupAt("b", "web/0/cache"), "key")
//	answer, err = actors.Ask[string](ctx, s, hosts.Lookup("billing"), "key")
//
// Names of the cluster need an Engine, by which the hosts agree: linearizable transactions, leases,
// an ordered watch. Each name has one holder, and each holding a fence, by which a holder that has
// lost its name is known from the newest. A singleton holds one; any process can:
//
//	names, err := cfg.Names(w.System())                    // this process's session with the engine
//	holding, err := names.RegisterActor(ctx, "ledger", pid) // until the actor, or its process, ends
//
// # The caller's duties
//
// What a name is for stops when Holding.Context ends, within Config.Margin, and Release follows
// when it has stopped, not before. What must not be changed by a holder that was frozen compares
// fences (Guard).
//
// # What is promised
//
// In the engine a name has one holder. Of two who act for it: the one before has been told to stop
// Margin before the lease can end, by a timer of its own on CLOCK_BOOTTIME, so that they act one
// after the other as long as stopping fits in the margin and the process runs. A process that is
// stopped or starved for longer can act for a moment after it goes on: its fence is lower than the
// newest. docs/hosts.md has what is not promised.
//
// hosts/etcd is an Engine on etcd, a module of its own; hoststest has one in memory, and the suite
// that every Engine has to pass.
package hosts
