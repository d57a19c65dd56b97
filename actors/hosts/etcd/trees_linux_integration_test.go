//go:build linux

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

const (
	treeVar = "COPPICE_TEST_ETCD_TREE" // the name of the host
	netVar  = "COPPICE_TEST_ETCD_NET"  // the first three numbers of the addresses
	dirVar  = "COPPICE_TEST_ETCD_DIR"
	soloVar = "COPPICE_TEST_ETCD_SOLO" // there is one seat
)

var treeHosts = []string{"a", "b", "c", "d"}

// treeConfig is that of a host: a, b and c have seats, and d has none.
func treeConfig() *hosts.Config {
	name, network, dir := os.Getenv(treeVar), os.Getenv(netVar), os.Getenv(dirVar)
	peers := hosts.Static{}
	for i, host := range treeHosts {
		peers[host] = fmt.Sprintf("%s.%d:7400", network, i+1)
	}
	at := func(file string) string { return filepath.Join(dir, file) }
	voters := seatHosts
	if os.Getenv(soloVar) != "" {
		voters = voters[:1]
	}
	return &hosts.Config{
		Cluster: "shop", Name: name, Listen: peers[name], Peers: peers,
		TLS:    hosts.TLS{Cert: at(name + ".pem"), Key: at(name + ".key"), CA: at("ca.pem")},
		Engine: etcd.Embedded{Dir: at(name), Seats: voters}.Quick(), Lease: 2 * time.Second,
	}
}

var networks atomic.Int32

// loopback is the first three numbers of addresses that this call alone has.
func loopback() string {
	n := os.Getpid()*4 + int(networks.Add(1))
	return fmt.Sprintf("127.%d.%d", 64+n>>8&63, n&255)
}

// billing is a singleton that ignores the end of its context.
func billing(_ context.Context, w *coppice.Worker) error {
	host := os.Getenv(treeVar)
	_, err := w.System().Spawn(context.Background(), "billing", func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			if c.Message() == "who" {
				c.Respond(fmt.Sprint(host, " ", os.Getpid()))
			}
		})
	})
	if err != nil {
		return err
	}
	<-w.WorkContext().Done()
	return nil
}

// tree is the program of a host. Its worker adds to an entry again and again, and prints what there
// is then, and who runs the singleton.
func tree() {
	cfg := treeConfig()
	if bad := os.Getenv(badVar); bad != "" {
		badInputs[bad].config(cfg)
		coppice.Main(coppice.Config{Hosts: cfg, Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: upAndWait}}})
		return
	}
	if os.Getenv(machineVar) != "" {
		machine(cfg)
		return
	}
	coppice.Main(coppice.Config{Hosts: cfg, Children: []coppice.ChildSpec{
		cfg.Singleton(hosts.Singleton{Name: "billing"}, billing),
		coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			fmt.Println("a worker is up")
			e, err := cfg.Engine.Open(cfg.Name)
			if err != nil {
				return err
			}
			defer e.Close()
			for n := 0; ctx.Err() == nil; {
				limit, cancel := context.WithTimeout(ctx, time.Second)
				_, err := e.Commit(limit, hosts.Txn{Then: []hosts.Op{{Key: "trees/" + cfg.Name, Value: fmt.Append(nil, n+1)}}})
				l, err2 := e.List(limit, "trees/")
				cancel()
				if errors.Join(err, err2) != nil {
					continue
				}
				n++
				var b strings.Builder
				for _, entry := range l.Entries {
					fmt.Fprintf(&b, "%s:%s ", strings.TrimPrefix(entry.Key, "trees/"), entry.Value)
				}
				fmt.Println("entries", b.String())
				limit, cancel = context.WithTimeout(ctx, 500*time.Millisecond) // who is asked may be stopped
				if who, err := actors.Ask[string](limit, w.System(), hosts.Lookup("billing"), "who"); err == nil {
					fmt.Println("billing on", who)
				}
				cancel()
				pause(ctx, 50*time.Millisecond)
			}
			return nil
		}},
		coppice.Func{Name: "told", Run: func(ctx context.Context) error {
			for last := 0; ctx.Err() == nil; pause(ctx, 10*time.Millisecond) {
				if pid := memberPID(coppice.Running()); pid != 0 && pid != last {
					fmt.Println("member", pid)
					last = pid
				}
			}
			return nil
		}},
	}})
}

func memberPID(rt *coppice.Runtime) int {
	for _, c := range rt.Snapshot().Children {
		if c.Name == "member" && len(c.Children) > 0 {
			return c.Children[0].PID
		}
	}
	return 0
}

// TestTrees: the members of three trees reach each other through the trunks, over TLS with the
// cluster's certificates, and a fourth host without a seat reaches them. A majority goes on when a
// member or a whole host is killed; and a worker is up before there is any engine. A singleton runs
// on one host, is reached by its name from all, moves when its process is stopped for longer than
// the lease, and is killed then, as it does not end by itself.
func TestTrees(t *testing.T) {
	if testing.Short() {
		t.Skip("starts four trees")
	}
	t.Parallel() // it waits for elections
	dir := shortDir(t)
	at := func(file string) string { return filepath.Join(dir, file) }
	if err := hosts.WriteCA(at("ca.pem"), at("ca.key"), "shop"); err != nil {
		t.Fatal(err)
	}
	network := loopback()
	programs := make(map[string]*runtimetest.Program)
	start := func(host string) {
		programs[host] = runtimetest.Start(t, []string{treeVar + "=" + host, netVar + "=" + network, dirVar + "=" + dir, "COPPICE_CONTROL=off"})
	}
	for _, host := range treeHosts {
		if err := hosts.WriteCert(at("ca.pem"), at("ca.key"), at(host+".pem"), at(host+".key"), "shop", host); err != nil {
			t.Fatal(err)
		}
	}
	start("a")
	programs["a"].Await(`a worker is up`) // no majority yet
	for _, host := range treeHosts[1:] {
		start(host)
	}
	member := programs["b"].Await(`member (\d+)`)[1]
	for _, host := range treeHosts {
		programs[host].Await(`entries a:\d+ b:\d+ c:\d+ d:\d+`)
	}
	// progress waits until workers have added to their entries since now.
	progress := func(hosts ...string) {
		t.Helper()
		for _, host := range hosts {
			count := func() (n int) {
				for _, line := range programs[host].Lines() {
					if strings.Contains(line, "entries ") {
						n++
					}
				}
				return n
			}
			from := count()
			runtimetest.Eventually(t, "progress of "+host, func() bool { return count() > from+3 })
		}
	}
	pid, err := strconv.Atoi(member)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	progress(treeHosts...)
	// owner waits until hosts agree on who runs the singleton, and that it is not former.
	owner := func(former string, hosts ...string) (host string, pid int) {
		t.Helper()
		for _, at := range hosts {
			runtimetest.Eventually(t, at+" knows another owner than "+former, func() bool {
				lines := programs[at].Lines()
				for i := len(lines) - 1; i >= 0; i-- {
					if _, who, ok := strings.Cut(lines[i], "billing on "); ok {
						if who == former || host != "" && who != fmt.Sprint(host, " ", pid) {
							return false
						}
						_, err := fmt.Sscan(who, &host, &pid)
						return err == nil
					}
				}
				return false
			})
		}
		return host, pid
	}
	host, frozen := owner("", treeHosts...)
	if err := syscall.Kill(frozen, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	owner(fmt.Sprint(host, " ", frozen), treeHosts...) // another one, after the lease
	_ = syscall.Kill(frozen, syscall.SIGCONT)          // its master may have taken it for hung by now
	runtimetest.Eventually(t, "the former owner is killed, as it does not stop", func() bool { return syscall.Kill(frozen, 0) != nil })
	programs["a"].Signal(syscall.SIGKILL)
	programs["a"].Wait()
	progress("b", "c", "d")
	start("a")
	progress(treeHosts...)
}
