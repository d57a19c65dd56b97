// Package hosts joins trees on several hosts, by two things that do not need each other. With
// Config an actor of another host is asked, sent to and monitored by the calls of package actors:
//
//	coppice.Main(coppice.Config{
//		Hosts: &hosts.Config{
//			Cluster: "shop", Name: "a", Listen: "10.0.0.1:7400",
//			Peers: hosts.Static{"a": "10.0.0.1:7400", "b": "10.0.0.2:7400"},
//			TLS:   hosts.TLS{Cert: "a.pem", Key: "a.key", CA: "shop.pem"},
//		},
//		Children: []coppice.ChildSpec{…},
//	})
//	answer, err := actors.Ask[string](ctx, s, s.LookupAt("b", "web/0/cache"), "key") // in any process
//
// The other is what they agree by: an Engine, with linearizable transactions, leases and an ordered
// watch; Names, a host's session with it, which registers names of the cluster, each with one
// holder; fences, by which a holder that has lost its name is known from the newest; and
// singletons, which run on the host that holds their name.
//
//	names, err := hosts.NewNames(engine, hosts.NamesConfig{Cluster: "shop", Host: "a"})
//	holding, err := names.Register(ctx, "billing", []byte("what others are told"))
//	work(holding.Context())        // ends when the name is lost; hosts.FenceOf gives the fence
//	err = holding.Release(ctx)     // when the work has stopped
//
// or, as a child of a tree on every host,
//
//	coppice.Func{Name: "billing", Run: func(ctx context.Context) error {
//		return names.RunSingleton(ctx, hosts.Singleton{Name: "billing", Run: work})
//	}}
//
// # The caller's duties
//
// What a name is for stops when Holding.Context ends, within NamesConfig.Margin, and Release
// follows when it has stopped, not before. What must not be changed by a holder that was frozen
// compares fences (Guard).
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
