package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

func asIs(*coppice.Pool) {}

var hang = story{
	"hang", "a request keeps a lock for ever: the worker is found, shows its stacks, and is replaced",
	func(p *coppice.Pool) {
		p.Size, p.Liveness = 1, coppice.Liveness{Every: 50 * time.Millisecond, Timeout: 500 * time.Millisecond, Path: "/healthz"}
	},
	func(t *teller) error {
		t.say("a request hangs with the lock that every request needs")
		go t.get("/hang") // it is never answered
		if err := t.until("hung", "exited", "restarting", "started"); err != nil {
			return err
		}
		report := <-t.crashes
		lines := slices.Collect(strings.Lines(report.Dump))
		at := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "waitForever") })
		if at < 0 {
			return fmt.Errorf("the report does not tell where it hung:\n%v", report)
		}
		t.say("its crash report has %d lines of stacks, among them", len(lines))
		for _, l := range lines[at:min(at+4, len(lines))] {
			fmt.Print("          | ", l)
		}
		return nil
	},
}

var leak = story{
	"leak", "a worker leaks memory: it is replaced before it runs out",
	func(p *coppice.Pool) {
		p.Recycle = coppice.Recycle{SoftMemory: 50 << 20, Every: 20 * time.Millisecond}
	},
	func(t *teller) error {
		t.say("a request leaks 64 MiB")
		t.get("/leak")
		return t.until("due (memory)", "replaced (recycle)", "drained (recycle)")
	},
}

var crashLoop = story{
	"crashloop", "every request crashes: the budget is used up, and as in OTP the program says so and ends",
	func(p *coppice.Pool) {
		p.Size, p.OTP, p.Intensity = 1, true, supervisor.Intensity{Max: 2, Period: time.Minute}
	},
	func(t *teller) error {
		for range 3 {
			t.get("/crash")
			if err := t.until("restarting"); errors.Is(err, coppice.ErrStopping) {
				break // it has given up
			} else if err != nil {
				return err
			}
		}
		if err := t.until("the end"); !errors.Is(err, coppice.ErrStopping) {
			return fmt.Errorf("the events have not ended: %w", err)
		}
		t.over = true
		if err := t.Wait(); err == nil {
			return errors.New("the tree has not given up")
		} else {
			t.say("the program would exit with 1: %v", err)
		}
		return nil
	},
}

var reload = story{
	"reload", "a new release takes over, slot by slot", asIs,
	func(t *teller) error {
		release.Store("better")
		if err := t.Reload(t.ctx); err != nil {
			return err
		}
		return t.until("web/0#", "reloaded, generation 2", "drained (reload)")
	},
}

var badReload = story{
	"badreload", "a release that fails in one slot: all slots get the one before back", asIs,
	func(t *teller) error {
		release.Store("bad")
		err := t.Reload(t.ctx)
		failed, ok := errors.AsType[*coppice.ReloadError](err)
		if !ok {
			return fmt.Errorf("the reload did not fail: %w", err)
		}
		t.say("%v", failed)
		if err := t.until("failed (reload)", "replaced (roll back)", "drained (roll back)"); err != nil {
			return err
		}
		release.Store("good again")
		t.say("a good release after it:")
		return t.Reload(t.ctx)
	},
}

var scale = story{
	"scale", "two workers more, then one alone", asIs,
	func(t *teller) error {
		if err := t.Scale(t.ctx, "web", 4); err != nil {
			return err
		}
		if err := t.until("scaled to 4"); err != nil {
			return err
		}
		if err := t.Scale(t.ctx, "web", 1); err != nil {
			return err
		}
		return t.until("scaled to 1", "drained (scale)")
	},
}

var spare = story{
	"spare", "a worker dies, and a spare has its slot at once",
	func(p *coppice.Pool) { p.Size, p.Spares = 1, 1 },
	func(t *teller) error {
		for up := false; !up; { // it grows behind the first worker, perhaps before we listened
			t.Snapshot().Walk(func(n coppice.Tree) { up = up || n.Role == "spare" && n.State == "running" })
			if !up {
				time.Sleep(time.Millisecond)
			}
		}
		t.say("the worker crashes")
		t.get("/crash")
		return t.until("exited", "started", "spare ready")
	},
}

var recycle = story{
	"recycle", "workers are replaced after their share of requests, not all at once",
	func(p *coppice.Pool) { p.Recycle = coppice.Recycle{Requests: 20} },
	func(t *teller) error {
		for range 40 {
			t.get("/")
		}
		return t.until("due (requests)", "replaced (recycle)", "drained (recycle)")
	},
}

var autoscale = story{
	"autoscale", "connections wait for a worker: the pool grows, and shrinks again when none waits",
	func(p *coppice.Pool) {
		perWorker, p.Size = 2, 1
		p.Autoscale = coppice.Autoscale{Max: 3, Wait: 100 * time.Millisecond, Calm: 300 * time.Millisecond}
	},
	func(t *teller) error {
		t.say("five clients connect, and a worker may have two")
		var clients []net.Conn
		for range 5 {
			c, err := net.Dial("tcp", t.Listeners()[0].Addr.String())
			if err != nil {
				return err
			}
			clients = append(clients, c)
		}
		if err := t.until("scaled (a connection has waited for", "to 2 in", "to 3 in"); err != nil {
			return err
		}
		t.say("they go")
		for _, c := range clients {
			c.Close()
		}
		return t.until("scaled (no connection has waited for", "to 2 in", "to 1 in")
	},
}

// poison: each GET /crash ends its worker.
var poison = story{
	"poison", "a request kills its worker each time: it is refused, and what runs beside it is not",
	func(p *coppice.Pool) {
		p.Size, p.Poison = 4, coppice.Poison{Deaths: 2}
	},
	func(t *teller) error {
		var served, cut, refused atomic.Int64
		beside, stop := context.WithCancel(t.ctx)
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for beside.Err() == nil {
					switch t.get("/") {
					case http.StatusOK:
						served.Add(1)
					case http.StatusServiceUnavailable:
						refused.Add(1)
					default:
						cut.Add(1)
					}
				}
			})
		}
		t.say("a client asks for what kills its worker, 20 times; four others ask for something else")
		killed := 0
		for range 20 {
			if t.get("/crash") != http.StatusServiceUnavailable {
				killed++
			}
		}
		stop()
		clients.Wait()
		t.say("it has killed %d workers, and was refused %d times; beside it %d requests were served, %d were cut, and %d refused",
			killed, 20-killed, served.Load(), cut.Load(), refused.Load())
		if killed > 10 || refused.Load() > 0 || t.get("/") != http.StatusOK {
			return errors.New("it was not refused, or what ran beside it was")
		}
		return nil
	},
}

var canary = story{
	"canary", "a release with a bug is tried in one slot, beside the old one: it is found worse, and goes back",
	func(p *coppice.Pool) {
		p.Liveness = coppice.Liveness{Every: 50 * time.Millisecond}
		p.Canary = coppice.Canary{Slots: 1, For: 500 * time.Millisecond, Requests: 300}
	},
	func(t *teller) error {
		over := make(chan struct{})
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
						t.get("/")
					}
				}
			})
		}
		release.Store("flaky")
		err := t.Reload(t.ctx)
		close(over)
		clients.Wait()
		if !errors.Is(err, coppice.ErrWorse) {
			return fmt.Errorf("it was not found: %w", err)
		}
		t.say("%v", err)
		return t.until("canary (begins: 1 of 2 slots)", "canary (back: its requests fail", "replaced (roll back)")
	},
}

var deadlines = story{
	"deadlines", "a request takes for ever: its context ends, then its worker is replaced; what runs beside it is answered",
	func(p *coppice.Pool) {
		p.RequestTimeout, p.Shutdown = coppice.RequestTimeout{Soft: 200 * time.Millisecond, Hard: 500 * time.Millisecond}, time.Second
	},
	func(t *teller) error {
		var served, lost atomic.Int64
		over := make(chan struct{})
		var clients sync.WaitGroup
		for range 4 {
			clients.Go(func() {
				for {
					select {
					case <-over:
						return
					default:
					}
					if t.get("/") == http.StatusOK {
						served.Add(1)
					} else {
						lost.Add(1)
					}
				}
			})
		}
		t.say("a request looks at its context, and is answered: status %d", t.get("/careful"))
		t.say("another does not")
		clients.Go(func() { t.get("/hang") })
		err := t.until("due (request)", "replaced (recycle)", "drained (recycle)")
		close(over)
		clients.Wait()
		if err != nil {
			return err
		}
		t.say("%v", (<-t.crashes).Reason)
		t.say("beside it %d requests were served, and %d lost", served.Load(), lost.Load())
		if lost.Load() > 0 {
			return errors.New("others were harmed")
		}
		return nil
	},
}

var postmortem = story{
	"postmortem", "a worker dies of a bug: one report has where, what it was serving, and what was before",
	func(p *coppice.Pool) { p.Size = 1 },
	func(t *teller) error {
		t.say("while a client reads a feed, another one's request meets the bug")
		feed, err := http.Get("http://" + t.Listeners()[0].Addr.String() + "/feed")
		if err != nil {
			return err
		}
		defer feed.Body.Close()
		t.get("/bug")
		if err := t.until("exited", "restarting", "started"); err != nil {
			return err
		}
		<-t.crashes
		report := t.Crashes()[0]
		text := report.String()
		for _, part := range []string{"divide by zero", ".mean(", "GET /bug", "GET /feed", "web/0#2 started"} {
			if !strings.Contains(text, part) {
				return fmt.Errorf("the report does not tell %q:\n%s", part, text)
			}
		}
		t.say("report %d, for `coppicectl crashes show %d`:", report.Number, report.Number)
		for line := range strings.Lines(text) {
			fmt.Print("          | ", line)
		}
		return nil
	},
}
