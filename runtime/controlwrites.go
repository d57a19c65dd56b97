package coppice

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/control"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
	"github.com/coppice-go/coppice/supervisor"
)

// handleWrites adds what changes the tree.
func (c *controlHandler) handleWrites(mux *http.ServeMux) {
	post := func(what string, do func(context.Context, *http.Request) error) {
		mux.HandleFunc("POST /v1/"+what, c.write(func(w http.ResponseWriter, r *http.Request) { c.perform(w, r, what, do) }))
	}
	post("reload", func(ctx context.Context, _ *http.Request) error { return c.Reload(ctx) })
	post("upgrade", func(ctx context.Context, r *http.Request) error {
		if r.FormValue("detach") == "" {
			return c.Upgrade(ctx)
		}
		go func() { _ = c.Upgrade(context.WithoutCancel(ctx)) }() // ends by its own bounds; the log and the events tell its end
		return nil
	})
	mux.HandleFunc("POST /v1/upgrade/check", c.write(func(w http.ResponseWriter, r *http.Request) {
		c.asked(r, "upgrade/check")
		plan, err := c.CheckUpgrade(r.Context())
		if err != nil {
			control.Error(w, httpStatus(err), err)
			return
		}
		control.Answer(w, map[string][]string{"plan": append([]string{}, plan...)})
	}))
	post("scale", func(ctx context.Context, r *http.Request) error {
		size, err := strconv.Atoi(r.FormValue("size"))
		if err != nil {
			return badParameter("size", r.FormValue("size"), "is not a number")
		}
		return c.Scale(ctx, r.FormValue("pool"), size)
	})
	for what, do := range map[string]func(context.Context, string) error{"restart": c.Restart, "stop": c.Stop, "kill": c.Kill} {
		post(what, func(ctx context.Context, r *http.Request) error { return do(ctx, r.FormValue("process")) })
	}
	mux.HandleFunc("POST /v1/hosts/{what...}", c.write(func(w http.ResponseWriter, r *http.Request) {
		c.perform(w, r, "hosts/"+r.PathValue("what"), func(ctx context.Context, r *http.Request) error {
			_, err := c.hosts(ctx, r.PathValue("what"), r)
			return err
		})
	}))
	post("canary", func(_ context.Context, r *http.Request) error {
		do := r.FormValue("do")
		if do != "promote" && do != "abort" {
			return badParameter("do", do, "is neither promote nor abort")
		}
		return c.EndCanary(do == "promote")
	})
	post("pause", func(_ context.Context, r *http.Request) error { return c.PauseListener(r.FormValue("listener")) })
	post("resume", func(_ context.Context, r *http.Request) error { return c.ResumeListener(r.FormValue("listener")) })
	post("actors/operate", func(ctx context.Context, r *http.Request) error {
		return c.actorSystem().Operate(ctx, r.FormValue("actor"), r.FormValue("do"), r.FormValue("what"))
	})
	post("loglevel", func(_ context.Context, r *http.Request) error {
		s := r.FormValue("level")
		if s == "" {
			return setLogLevel(c.log, nil)
		}
		var level slog.Level
		if err := level.UnmarshalText([]byte(strings.ToUpper(s))); err != nil {
			return badParameter("level", s, "is not debug, info, warn or error, nor empty for the program's own level")
		}
		return setLogLevel(c.log, &level)
	})
}

// write refuses the request if the endpoint is read-only.
func (c *controlHandler) write(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c.readOnly {
			control.Error(w, http.StatusForbidden, errors.New("coppice: the endpoint is read-only"))
			return
		}
		h(w, r)
	}
}

// result is how a write ended.
type result struct {
	OK     bool    `json:"ok"`
	Status int     `json:"status,omitempty"` // that the error would have without a stream
	Error  string  `json:"error,omitempty"`
	Took   float64 `json:"took_seconds"`
}

// perform does what a client asks for, until it is done, the client has gone, or the time in the
// parameter timeout is over. A client that accepts a stream gets the events meanwhile, and then the
// result.
func (c *controlHandler) perform(w http.ResponseWriter, r *http.Request, what string, do func(context.Context, *http.Request) error) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if s := r.FormValue("timeout"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			control.Error(w, http.StatusBadRequest, badParameter("timeout", s, "is not a duration, as 30s"))
			return
		}
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	began := time.Now()
	c.asked(r, what)
	act := func() error {
		defer c.settle()
		return do(ctx, r)
	}
	if !follows(r) {
		if err := act(); err != nil {
			control.Error(w, httpStatus(err), err)
			return
		}
		control.Answer(w, result{OK: true, Took: time.Since(began).Seconds()})
		return
	}
	events, stream := c.Events(FromNow), control.NewStream(w)
	over, finish := context.WithCancel(ctx)
	followed := make(chan struct{})
	go func() { // ends with over
		defer close(followed)
		stream.Follow(over, events.message)
		cancel() // the client may have gone
	}()
	err := func() error {
		defer func() { finish(); <-followed }() // also when it panics, which net/http recovers
		return act()
	}()
	for _, ev := range events.Kept(maxListed) {
		_ = stream.Send("event", ev.Cursor, ev) // the next says it too
	}
	res := result{OK: err == nil, Took: time.Since(began).Seconds()}
	if err != nil {
		res.Status, res.Error = httpStatus(err), err.Error()
	}
	_ = stream.Send("done", 0, res)
}

// asked adds a request of an operator to the log and to the events, with the process it comes from.
func (c *controlHandler) asked(r *http.Request, what string) {
	for _, name := range []string{"pool", "size", "process", "listener", "level", "actor", "do", "what", "host"} {
		if v := r.FormValue(name); v != "" {
			what += " " + name + "=" + v
		}
	}
	from := "a client of the program's own server, " + r.RemoteAddr
	attrs := []any{"what", what}
	if p, ok := control.PeerOf(r.Context()); ok {
		from = fmt.Sprintf("user %d, pid %d", p.UID, p.PID)
		attrs = append(attrs, "uid", p.UID, "pid", p.PID)
	} else {
		attrs = append(attrs, "remote", r.RemoteAddr)
	}
	what = supervisor.Cut(what)
	c.log.Info("an operator asks for something", attrs...)
	c.events.Put(Event{Time: time.Now(), Kind: OperatorAsked, Why: what + ", " + from})
}

// serveBundle answers with all that an expert needs for a diagnosis, as a tar.
func (c *controlHandler) serveBundle(w http.ResponseWriter, r *http.Request) {
	if !c.bundling.TryLock() {
		control.Error(w, http.StatusConflict, errors.New("coppice: another bundle is being made"))
		return
	}
	defer c.bundling.Unlock()
	c.asked(r, "bundle")
	name := fmt.Sprintf("%s-%s", programName(), time.Now().UTC().Format("20060102T150405Z"))
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", name+".tar"))
	tw := tar.NewWriter(w)
	add := func(file string, b []byte) {
		if tw.WriteHeader(&tar.Header{Name: name + "/" + file, Mode: 0o600, Size: int64(len(b)), ModTime: time.Now()}) == nil {
			_, _ = tw.Write(b) // on an error the client is gone
		}
	}
	addJSON := func(file string, v any) {
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			b = []byte(err.Error())
		}
		add(file, b)
	}
	t := c.Snapshot()
	add("tree.txt", []byte(t.String()))
	addJSON("tree.json", t)
	add("config.txt", []byte(c.Describe()))
	addJSON("about.json", c.about())
	addJSON("workers.json", c.workers())
	addJSON("listeners.json", c.listenerRows())
	addJSON("actors.json", c.actors())
	for _, a := range c.actors() {
		if a.Kind == "" {
			continue
		}
		ctx, cancel := context.WithTimeout(r.Context(), stacksTimeout)
		if state, err := c.actorSystem().Inspect(ctx, a.Path); err == nil {
			addJSON("actors/"+strings.ReplaceAll(a.Path, "/", "-")+".json", state)
		}
		cancel()
	}
	addJSON("events.json", c.Events(0).Kept(maxListed))
	addJSON("crashes.json", c.Crashes())
	addJSON("logs.json", (&logReader{log: c.lines}).kept())
	metrics := stacks.NewPage()
	c.serveMetrics(metrics, r)
	add("metrics.txt", metrics.Bytes())
	c.addStacks(r.Context(), add)
	_ = tw.Close() // on an error the client is gone
}

// stacksTogether is how many processes are asked for their stacks at a time, each of which may send
// stacks.Max bytes.
const stacksTogether = 8

// addStacks adds the stacks of each process, or why they cannot be had.
func (c *controlHandler) addStacks(ctx context.Context, add func(file string, b []byte)) {
	ids := map[string]int{string(RoleMaster): 0}
	for _, w := range c.children.all() {
		ids[fmt.Sprintf("%s#%d", w.name(), w.hello.ID)] = w.hello.ID
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	turns := make(chan struct{}, stacksTogether)
	for name, id := range ids {
		all.Go(func() {
			turns <- struct{}{}
			defer func() { <-turns }()
			ctx, cancel := context.WithTimeout(ctx, stacksTimeout)
			defer cancel()
			text, err := c.Stacks(ctx, id)
			if err != nil {
				text = []byte(err.Error() + "\n")
			}
			mu.Lock()
			defer mu.Unlock()
			add("stacks/"+strings.ReplaceAll(name, "/", "-")+".txt", text)
		})
	}
	all.Wait()
}
