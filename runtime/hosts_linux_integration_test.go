//go:build linux

package coppice_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// A testCluster has a gateway that carries nothing. Its actor says who it is: process, incarnation,
// address of its listener, and how often it has become the gateway.
type testCluster struct{ name string }

func (c testCluster) HostName() string { return c.name }
func (c testCluster) NewBoot() string  { return strings.ToLower(rand.Text()[:12]) }

func (testCluster) Begin(_ context.Context, rt *coppice.Runtime) error {
	fmt.Println("begun at", rt.System().Address())
	return nil
}

// Operate says what it was asked.
func (c testCluster) Operate(_ context.Context, rt *coppice.Runtime, what string, values url.Values, say func(string)) (any, error) {
	say("asked for " + what)
	if what == "nothing" {
		return nil, fmt.Errorf("no %s: %w", what, coppice.ErrUnsupported)
	}
	return map[string]string{"host": c.name, "what": what, "of": values.Get("host"), "at": rt.System().Address()}, nil
}

// Member returns one that says who it is.
func (c testCluster) Member() func(ctx context.Context) error {
	return func(ctx context.Context) error {
		fmt.Printf("member %d of %s\n", os.Getpid(), c.name)
		<-ctx.Done()
		return nil
	}
}

func (c testCluster) Validate() error {
	if c.name == "" {
		return errors.New("Name is empty")
	}
	return nil
}

func (c testCluster) RunGateway(ctx context.Context, g actors.GatewayProcess) error {
	ln, err := g.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	begun := new(countingGateway)
	g.System().Carry(begun)
	_, err = g.System().Spawn(ctx, "who", func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			if _, ok := c.Message().(string); ok {
				c.Respond(fmt.Sprint(os.Getpid(), " ", g.Incarnation(), " ", ln.Addr(), " ", begun.n.Load()))
			}
		})
	})
	if err != nil {
		return err
	}
	if err := g.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

type countingGateway struct{ n atomic.Int32 }

func (g *countingGateway) Begin()                                                 { g.n.Add(1) }
func (*countingGateway) OpenLane(uint64, string, uint64, string, actors.HalfLane) {}
func (*countingGateway) LaneAccepted(uint64, uint64, uint64, actors.HalfLane)     {}
func (*countingGateway) LaneDeclined(uint64, []byte)                              {}
func (*countingGateway) ProcessEnded(string, []byte)                              {}

func init() {
	trees["on a host"] = func() coppice.Config {
		return coppice.Config{Hosts: testCluster{"a"}, Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: afterGateway}}}
	}
	trees["upgraded on a host"] = func() coppice.Config {
		cfg := upgradedTree()
		if !release("alone") {
			cfg.Hosts = testCluster{"a"}
		}
		before := cfg.Hooks.Started
		cfg.Hooks.Started = func(rt *coppice.Runtime) {
			v, err := rt.System().Ask(context.Background(), rt.Lookup("gateway/0/who"), "")
			fmt.Printf("gateway of %s: %v %v\n", rt.System().Address(), v, err)
			before(rt)
		}
		return cfg
	}
}

// afterGateway is a worker that needs the gateway for its start.
func afterGateway(ctx context.Context, w *coppice.Worker) error {
	v, err := w.System().Ask(ctx, w.Lookup("gateway/0/who"), "")
	if err != nil {
		return err
	}
	if err := tell(ctx, w, workerReport{Text: fmt.Sprint(v), Addr: w.System().Address()}); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// TestGatewayOfATree: in a cluster the gateway is up before the other children, addresses have the
// boot, a reload leaves the gateway and the member, and those that are killed have successors.
func TestGatewayOfATree(t *testing.T) {
	p := startTree(t, "on a host")
	ask := func() []string {
		var answer string
		runtimetest.Eventually(t, "the gateway answers", func() bool {
			v, err := p.System().Ask(t.Context(), p.Lookup("gateway/0/who"), "")
			answer, _ = v.(string)
			return err == nil
		})
		return strings.Fields(answer)
	}
	boot := actors.Boot(p.System().Address())
	if len(boot) != 12 || p.System().Address() != boot+".0" {
		t.Errorf("the master has the address %s", p.System().Address())
	}
	if r := p.reported(1)[0]; !strings.HasPrefix(r.Addr, boot+".") {
		t.Errorf("a worker has the address %s", r.Addr)
	}
	who := ask()
	if err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := ask(); again[0] != who[0] || again[3] != "1" {
		t.Errorf("after a reload the gateway is %v, before %v", again, who)
	}
	if c, err := net.Dial("tcp", who[2]); err != nil {
		t.Errorf("after a reload the gateway does not listen: %v", err)
	} else {
		c.Close()
	}
	if err := p.Scale(t.Context(), "", 2); err != nil { // the first pool, which is not the gateway's
		t.Fatal(err)
	}
	for _, c := range p.Snapshot().Children {
		if c.Name == "gateway" && len(c.Children) != 1 {
			t.Errorf("%d gateways", len(c.Children))
		}
	}
	api := p.ControlHandler(coppice.ControlOptions{Writes: true})
	for path, want := range map[string]string{
		"GET /v1/hosts?host=b":       `200 {"at":"` + boot + `.0","host":"a","of":"b","what":""}`,
		"POST /v1/hosts/drain":       `200 {"ok":true,`,
		"POST /v1/hosts/nothing?x=y": `501 {"status":501,"error":"no nothing: `,
		"GET /v1/hosts/drain":        `404 `,
	} {
		method, path, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		r := httptest.NewRequest(method, "http://127.0.0.1"+path, nil)
		api.ServeHTTP(w, r)
		if got := fmt.Sprint(w.Code, " ", w.Body); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", path, got)
		}
	}
	said := ""
	for _, ev := range p.Events(0).Kept(1000) {
		if ev.Kind == coppice.HostsOperated {
			said += ev.Why + "; "
		}
	}
	if !strings.Contains(said, "asked for drain; ") {
		t.Errorf("the events: %s", said)
	}
	members := regexp.MustCompile(`member (\d+) of a`)
	runtimetest.Eventually(t, "the member says who it is", func() bool { return members.MatchString(p.output.String()) })
	for _, number := range []string{who[0], members.FindStringSubmatch(p.output.String())[1]} {
		pid, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	runtimetest.Eventually(t, "there is another member, and one only", func() bool {
		return len(members.FindAllString(p.output.String(), -1)) == 2
	})
	runtimetest.Eventually(t, "there is another gateway", func() bool {
		now := ask()
		return now[0] != who[0] && now[1] > who[1] && now[3] == "1"
	})
}

// TestUpgradeOnAHost: an upgrade leaves the boot, the member and the gateway, which hears that it
// is the gateway of the new master too; a program without the cluster is refused.
func TestUpgradeOnAHost(t *testing.T) {
	u := startUpgradedTree(t, "upgraded on a host", "")
	before := strings.Fields(u.Await(`^gateway of (.*) <nil>$`)[1])
	u.upgrade("alone", "Config.Hosts names the host")
	u.upgrade("", "gateway of ")
	if n := u.printed("member "); n != 0 {
		t.Errorf("%d members were started", n)
	}
	runtimetest.Eventually(t, "the new master tells", func() bool { return u.printed("gateway of "+before[0]+" "+before[1]+" ") == 1 })
}

// TestBadCluster: what is wrong with a cluster is found before anything starts.
func TestBadCluster(t *testing.T) {
	_, err := coppice.Start(t.Context(), coppice.Config{Hosts: testCluster{}})
	if bad, ok := errors.AsType[*coppice.InvalidError](err); !ok || bad.Field != "Hosts" {
		t.Errorf("error %v", err)
	}
}
