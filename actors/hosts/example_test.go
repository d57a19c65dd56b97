package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	coppice "github.com/coppice-go/coppice/runtime"
)

// session returns a host's names. In a tree they come from Config.Names, and the engine is etcd.
func session(m *hoststest.Memory, host string) *hosts.Names {
	e, err := m.Open(host)
	if err != nil {
		panic(err)
	}
	n, err := hosts.NewNames(e, hosts.NamesConfig{Cluster: "shop", Host: host})
	if err != nil {
		panic(err)
	}
	if err := n.WaitLive(context.Background()); err != nil {
		panic(err)
	}
	return n
}

// One host at a time holds a name, and each holding has a number that is higher than the one
// before.
func ExampleNames() {
	ctx := context.Background()
	m := hoststest.NewMemory()
	a, b := session(m, "a"), session(m, "b")
	defer a.Close(ctx)
	defer b.Close(ctx)
	first, err := a.Register(ctx, "billing", nil)
	fmt.Println(first.Fence().Name, err)
	_, err = b.Register(ctx, "billing", nil)
	fmt.Println(errors.Is(err, actors.ErrNameTaken))
	fmt.Println(first.Release(ctx), first.Context().Err()) // its context ends what runs under the name
	second, err := b.Register(ctx, "billing", nil)
	fmt.Println(err, second.Fence().Number > first.Fence().Number)
	fmt.Println(second.Release(ctx)) // as soon as nothing acts under it any more: Close waits for that
	// Output:
	// billing <nil>
	// true
	// <nil> context canceled
	// <nil> true
	// <nil>
}

// What runs once in the cluster: the function runs on the host that holds the name.
func ExampleNames_RunSingleton() {
	ctx, cancel := context.WithCancel(context.Background())
	n := session(hoststest.NewMemory(), "a")
	defer n.Close(context.Background())
	err := n.RunSingleton(ctx, hosts.Singleton{Name: "billing", Run: func(ctx context.Context) error {
		fence, _ := hosts.FenceOf(ctx) // to be sent along with what it changes
		fmt.Println("only here:", fence.Name)
		cancel() // or the name is lost
		<-ctx.Done()
		return ctx.Err()
	}})
	fmt.Println("ended:", err)
	// Output:
	// only here: billing
	// ended: <nil>
}

// A guard stands before what only the newest holder may change, and refuses one that was replaced.
func ExampleGuard() {
	var g hosts.Guard
	fmt.Println(g.Check(hosts.Fence{Name: "billing", Number: 7}))
	fmt.Println(g.Check(hosts.Fence{Name: "billing", Number: 9}))
	fmt.Println(errors.Is(g.Check(hosts.Fence{Name: "billing", Number: 7}), hosts.ErrStale))
	// Output:
	// <nil>
	// <nil>
	// true
}

// A tree that joins a cluster has the hosts in its Config; a singleton is a child of each tree.
func ExampleConfig() {
	cluster := &hosts.Config{
		Cluster: "shop", Name: "a", Listen: "10.0.0.1:7070",
		Peers: hosts.Static{"a": "10.0.0.1:7070", "b": "10.0.0.2:7070"},
		TLS:   hosts.TLS{CA: "ca.pem", Cert: "a.pem", Key: "a.key"},
	}
	cfg := coppice.Config{Hosts: cluster, Children: []coppice.ChildSpec{
		cluster.Singleton(hosts.Singleton{Name: "billing"}, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}),
	}}
	_ = cfg // coppice.Main(cfg)
	fmt.Println(cluster.Validate())
	// Output: <nil>
}

// Keys are spread over the members of a group on all hosts. Each process picks the same member for
// a key, and when one goes only its keys move.
func ExampleGroup() {
	_ = func(ctx context.Context, w *coppice.Worker) error { // the worker function of a tree with Config.Hosts
		group, err := hosts.NewGroup(ctx, w.System(), "cache")
		if err != nil {
			return err
		}
		pid, err := w.System().Spawn(ctx, "cache", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) })
		if err != nil {
			return err
		}
		if err := group.Join(ctx, w.Name(), pid); err != nil { // by a name that its replacement has too
			return err
		}
		owner, err := group.Pick("user-7")
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return w.System().Send(ctx, owner, "an order")
	}
}
