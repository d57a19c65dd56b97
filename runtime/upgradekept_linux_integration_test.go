//go:build linux

package coppice_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// An order is what a worker asks an actor of the master.
type order struct{ Do string }

func init() {
	actors.RegisterType[order]("coppice_test.order")
	trees["kept"] = keptTree
}

// keeper is an actor of the master that counts orders, and lives on.
type keeper struct {
	name    string
	Count   int
	waiting []*actor.PID // who gets an answer later
}

func (k *keeper) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actors.Down:
		fmt.Printf("%s: %s is down\n", k.name, m.PID.Id)
	case order:
		k.Count++
		answer := order{fmt.Sprintf("%s %d", k.name, k.Count)}
		switch m.Do {
		case "later":
			k.waiting = append(k.waiting, ctx.Sender())
			fmt.Println(k.name, "lets a worker wait")
			return
		case "answer":
			for _, pid := range k.waiting {
				ctx.Send(pid, answer)
			}
			k.waiting = nil
		case "watch":
			rt := coppice.Running()
			rt.System().MonitorFrom(ctx, rt.Lookup("web/0"))
		}
		ctx.Respond(answer)
	}
}

func (k *keeper) HandOver(actor.Context) (actors.Handover, error) {
	state, err := json.Marshal(k)
	return actors.Handover{Version: 1, State: state, Asks: k.waiting}, err
}

func (k *keeper) TakeOver(_ actor.Context, h actors.Handover) error {
	k.waiting = h.Asks
	return json.Unmarshal(h.State, k)
}

// keptTree has two actors that live on, one that does not, and workers that ask and monitor them.
func keptTree() coppice.Config {
	cfg := coppice.Config{
		Load: selfSigned,
		Children: []coppice.ChildSpec{
			coppice.Actor{Name: "cart", New: func() actor.Actor { return &keeper{name: "cart"} }},
			coppice.Actor{Name: "bank", New: func() actor.Actor { return &keeper{name: "bank"} }},
			coppice.Actor{Name: "plain", New: func() actor.Actor { return actorFunc(func(actor.Context) {}) }},
			coppice.ListenerSpec{Name: "https", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.Pool{Name: "web", Size: 2, Worker: serveKept},
		},
	}
	cfg.Hooks.Started = func(rt *coppice.Runtime) { fmt.Println("at", rt.Listeners()[0].Addr) }
	return cfg
}

type actorFunc func(actor.Context)

func (f actorFunc) Receive(ctx actor.Context) { f(ctx) }

// serveKept passes orders on: /cart/add.
func serveKept(ctx context.Context, w *coppice.Worker) error {
	cert, err := tls.X509KeyPair(w.Config(), w.Config())
	if err != nil {
		return err
	}
	ln, err := w.Listener(ctx, "https")
	if err != nil {
		return err
	}
	for _, name := range []string{"cart", "plain"} {
		m := w.System().Monitor(w.Lookup(name))
		go func() { // ends with the process
			fmt.Printf("the end of %s: %v\n", name, (<-m.C).Reason)
		}()
	}
	return w.ServeTLS(ctx, ln, &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			name, do, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
			answer, err := actors.Ask[order](r.Context(), w.System(), w.Lookup(name), order{do})
			if err != nil {
				rw.WriteHeader(http.StatusInternalServerError)
				answer.Do = err.Error()
			}
			fmt.Fprint(rw, answer.Do)
		}),
	})
}

// TestUpgradeKeeps: over upgrades to another program and back, two actors of the master keep their
// states, asks that they have taken are answered, monitors fire once or, of what lives on, not at
// all; TLS sessions are resumed, and a size that an operator has set stays.
func TestUpgradeKeeps(t *testing.T) {
	if testing.Short() {
		t.Skip("TestUpgrade goes the same way")
	}
	u := startUpgradedTree(t, "kept", "")
	client := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1)},
	}}
	resumed := false
	ask := func(order string) string {
		resp, err := client.Get("https://" + u.addr + "/" + order)
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		resumed = resp.TLS.DidResume
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err.Error()
		}
		return string(body)
	}
	want := func(order, answer string) {
		t.Helper()
		if got := ask(order); got != answer {
			t.Errorf("%s: %q, want %q", order, got, answer)
		}
	}
	u.Signal(syscall.SIGTTIN)
	const workers, all = 3, 4 // and the listener process
	runtimetest.Eventually(t, "a worker more", func() bool { return len(runtimetest.Children(t, u.PID())) == all })
	for i, to := range []string{"another", ""} {
		carts, banks := 4*i, 3*i // orders before
		want("cart/watch", fmt.Sprint("cart ", carts+1))
		want("bank/watch", fmt.Sprint("bank ", banks+1))
		waiting, seen := make(chan string, 1), len(u.Lines())
		go func() { waiting <- ask("cart/later") }()
		runtimetest.Eventually(t, "an ask that waits", func() bool {
			return strings.Contains(strings.Join(u.Lines()[seen:], "\n"), "cart lets a worker wait")
		})
		u.upgrade(to, "INFO upgraded")
		want("cart/answer", fmt.Sprint("cart ", carts+3))
		if got := <-waiting; got != fmt.Sprint("cart ", carts+3) {
			t.Errorf("the ask over the upgrade: %q", got)
		}
		want("cart/add", fmt.Sprint("cart ", carts+4))
		want("bank/add", fmt.Sprint("bank ", banks+2))
		want("bank/add", fmt.Sprint("bank ", banks+3))
		if !resumed {
			t.Error("the TLS session was not resumed")
		}
		runtimetest.Eventually(t, "as many children as before", func() bool { return len(runtimetest.Children(t, u.PID())) == all })
		for line, n := range map[string]int{"cart: web/0 is down": 1, "bank: web/0 is down": 1, "the end of plain: error: process replaced in place": workers} {
			runtimetest.Eventually(t, line, func() bool { return u.printed(line) >= n })
			if u.printed(line) != n {
				t.Errorf("%d times %q, want %d", u.printed(line), line, n)
			}
		}
		if u.printed("the end of cart") != u.printed("the end of cart: error: actor system closed") { // that of the worker
			t.Error("an actor that lives on has ended for those that monitor it")
		}
	}
	u.Signal(syscall.SIGTERM)
	if code := u.Wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
}
