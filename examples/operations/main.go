// Operations shows what happens to a pool in operation: each subcommand starts one service,
// does one thing to it, prints the tree's events, and exits with 0 when the story went as
// told.
//
//	go run ./examples/operations reload
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// A story is a subcommand: the pool as it needs it, and what is done to it.
type story struct {
	name, about string
	pool        func(*coppice.Pool)
	tell        func(*teller) error
}

// stories are all, in the order of the usage text. A new one is a new file, and a line
// here.
var stories = []story{hang, leak, crashLoop, reload, badReload, scale, spare, recycle, autoscale, poison, canary, deadlines, postmortem}

func main() {
	var s *story
	for i := range stories {
		if len(os.Args) == 2 && os.Args[1] == stories[i].name {
			s = &stories[i]
		}
	}
	if s == nil {
		fmt.Fprintln(os.Stderr, "usage: operations STORY")
		for _, s := range stories {
			fmt.Fprintf(os.Stderr, "  %-10s %s\n", s.name, s.about)
		}
		os.Exit(2)
	}
	if err := run(s); err != nil {
		fmt.Fprintf(os.Stderr, "operations: %s: %v\n", s.name, err)
		os.Exit(1)
	}
	fmt.Println("the story went as told")
}

// release is what Config.Load returns: which version of the service it is.
var release atomic.Value

func run(s *story) error {
	release.Store("good")
	p := coppice.Pool{Name: "web", Size: 2, Worker: serve}
	s.pool(&p)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	crashes := make(chan coppice.CrashReport, 16)
	rt, err := coppice.Start(ctx, coppice.Config{
		Output:    io.Discard, // the stories print what they need of it
		Logger:    slog.New(slog.DiscardHandler),
		Intensity: supervisor.Intensity{Period: 10 * time.Second}, // no second chance for a pool that gave up
		Load:      func(context.Context) ([]byte, error) { return []byte(release.Load().(string)), nil },
		Hooks:     coppice.Hooks{Crash: func(r coppice.CrashReport) { crashes <- r }},
		Children:  []coppice.ChildSpec{p},
	})
	if err != nil {
		return err
	}
	t := &teller{Runtime: rt, ctx: ctx, events: rt.Events(coppice.FromNow), crashes: crashes, began: time.Now()}
	err = s.tell(t)
	if down := rt.Shutdown(ctx); !t.over {
		err = errors.Join(err, down)
	}
	return err
}

// serve is the service. What its handlers do wrong is part of the stories.
func serve(ctx context.Context, w *coppice.Worker) error {
	if string(w.Config()) == "bad" && w.Slot() == 1 {
		fmt.Println("cannot open the database of release", string(w.Config()))
		return errors.New("no such table: users")
	}
	ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Network: "tcp", Address: "127.0.0.1:0", Limits: coppice.Limits{PerWorker: perWorker}})
	if err != nil {
		return err
	}
	var leaked [][]byte
	mux := http.NewServeMux()
	var asked atomic.Int64
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		if asked.Add(1)%10 == 0 && string(w.Config()) == "flaky" {
			http.Error(rw, "it has a bug", http.StatusInternalServerError)
			return
		}
		fmt.Fprintln(rw, w.Name(), string(w.Config()))
	})
	mux.HandleFunc("/crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/bug", func(http.ResponseWriter, *http.Request) {
		go mean(nil)
		select {} // that is the end
	})
	mux.HandleFunc("/healthz", func(rw http.ResponseWriter, _ *http.Request) {
		database.Lock()
		defer database.Unlock()
		fmt.Fprintln(rw, "the database answers")
	})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) { waitForever() })
	mux.HandleFunc("/careful", func(rw http.ResponseWriter, r *http.Request) {
		<-r.Context().Done() // of a query that takes long
		http.Error(rw, context.Cause(r.Context()).Error(), http.StatusGatewayTimeout)
	})
	mux.HandleFunc("/feed", func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).Flush() // the client knows that it is served
		<-r.Context().Done()
	})
	mux.HandleFunc("/leak", func(http.ResponseWriter, *http.Request) {
		leaked = append(leaked, []byte(strings.Repeat("x", 64<<20)))
	})
	return w.Serve(ctx, ln, &http.Server{Handler: mux})
}

// mean has a bug: there may be no prices.
func mean(prices []int) int {
	sum := 0
	for _, p := range prices {
		sum += p
	}
	return sum / len(prices)
}

// perWorker is how many connections a worker may have; 0 = any number.
var perWorker int

// database is what a request that hangs does not give back.
var database sync.Mutex

func waitForever() {
	database.Lock()
	select {}
}

// teller tells a story: it prints events, and waits for those that must come.
type teller struct {
	*coppice.Runtime
	ctx     context.Context
	events  *coppice.EventReader
	crashes <-chan coppice.CrashReport
	began   time.Time
	told    []string // the events printed since until has returned
	over    bool     // the tree ends in this story
}

// say prints a line of the story's own, after what happened before it.
func (t *teller) say(format string, args ...any) {
	now, cancel := context.WithCancel(t.ctx)
	cancel()
	for t.next(now) == nil {
	}
	t.print(time.Now(), fmt.Sprintf(format, args...))
}

// print prints a line under its time, from the beginning of the story.
func (t *teller) print(at time.Time, line string) {
	fmt.Printf("%7.3fs  %s\n", max(0, at.Sub(t.began)).Seconds(), line)
}

// next prints the next event.
func (t *teller) next(ctx context.Context) error {
	ev, err := t.events.Next(ctx)
	if err != nil {
		return err
	}
	line := ev.String()
	t.print(ev.Time, line)
	t.told = append(t.told, line)
	return nil
}

// until prints events until each of the words has been in one, in any order, since it
// was called last.
func (t *teller) until(words ...string) error {
	for {
		words = slices.DeleteFunc(words, func(w string) bool {
			return slices.ContainsFunc(t.told, func(line string) bool { return strings.Contains(line, w) })
		})
		if len(words) == 0 {
			t.told = nil
			return nil
		}
		if err := t.next(t.ctx); err != nil {
			return fmt.Errorf("waiting for %q: %w", words, err)
		}
	}
}

// get asks the service, and returns the status of the answer. An answer that does not come, 0, is
// part of some stories.
func (t *teller) get(path string) (status int) {
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get("http://" + t.Listeners()[0].Addr.String() + path)
	if err != nil {
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}
