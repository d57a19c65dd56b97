package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/chromedp/chromedp"
)

// way is what stands between the browser and the page of a tree, and can fail.
type way struct {
	url string // of the page

	mu    sync.Mutex
	to    *httputil.ReverseProxy
	fault func(http.ResponseWriter, *http.Request) bool // true = it has answered; nil = there is none
	cut   chan struct{}                                 // ends streams when it is closed
}

func newWay(t *testing.T, page string) *way {
	w := &way{cut: make(chan struct{})}
	w.lead(t, page)
	srv := httptest.NewServer(w)
	t.Cleanup(func() {
		w.fail(nil)
		srv.Close()
	})
	w.url = srv.URL + "/ops/"
	return w
}

// lead lets the way go to another page, and cuts streams.
func (w *way) lead(t *testing.T, page string) {
	u, err := url.Parse(page)
	if err != nil {
		t.Fatal(err)
	}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: u.Scheme, Host: u.Host})
	to.FlushInterval, to.ErrorLog = -1, log.New(io.Discard, "", 0)
	w.mu.Lock()
	w.to = to
	w.mu.Unlock()
	w.fail(nil)
}

// fail lets requests meet a fault from now on, and cuts streams.
func (w *way) fail(fault func(http.ResponseWriter, *http.Request) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fault = fault
	close(w.cut)
	w.cut = make(chan struct{})
}

func (w *way) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	fault, to, cut := w.fault, w.to, w.cut
	w.mu.Unlock()
	if r.FormValue("follow") != "" {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		go func() { // ends with the request
			select {
			case <-cut:
				cancel()
			case <-ctx.Done():
			}
		}()
		r = r.WithContext(ctx)
	}
	if fault == nil || !fault(rw, r) {
		to.ServeHTTP(rw, r)
	}
}

// answers returns a fault: a JSON in place of what paths end in, maybe as it was changed.
func answers(path, body string) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, path) {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
		return true
	}
}

// pidOf is an expression: what the tree shows as the pid of a process.
func pidOf(name string) string {
	return text(fmt.Sprintf(`#tree tr[data-name=%q] td:nth-of-type(3)`, name))
}

func (s shop) pid(b *browser, name string) int {
	b.t.Helper()
	b.await(pidOf(name) + " !== ''")
	n, err := strconv.Atoi(b.eval(pidOf(name)))
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

func (shop) kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// failed is what the console says of each request that fails.
const failed = "Failed to load resource"

// alerted is an expression: a banner says so.
func alerted(words string) string { return text("#alerts") + fmt.Sprintf(".includes(%q)", words) }

// TestBanners: what is wrong is said in words, as long as it is wrong.
func TestBanners(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	spoiled := filepath.Join(t.TempDir(), "spoiled")
	s, b := start(t, "-spoil", spoiled), open(t)
	w := newWay(t, s.ops)
	b.do(chromedp.Navigate(w.url))
	b.await(allRun)

	t.Run("hang", func(t *testing.T) {
		pid := s.pid(b, "mail/0")
		s.kill(t, pid, syscall.SIGSTOP)
		b.await(alerted("mail/0 hangs: it has not answered its heartbeat since "))
		s.kill(t, pid, syscall.SIGCONT)
		b.await("!" + alerted("mail/0 hangs"))
	})
	t.Run("balance", func(t *testing.T) {
		shown := func(words string) string {
			return text(`#listeners tr[data-name="http"]`) + fmt.Sprintf(".includes(%q)", words)
		}
		b.await(shown("too few yet"))
		for range 30 {
			s.ask("")
		}
		b.await(shown("100 %"))
		old := s.pid(b, "web/0")
		s.kill(t, old, syscall.SIGKILL)
		b.await(fmt.Sprintf(`%s !== '%d'`, pidOf("web/0"), old) + " && " + shown("too few yet")) // the new one has served nothing
	})
	t.Run("budget", func(t *testing.T) {
		for range 2 {
			old := s.pid(b, "mail/0")
			s.kill(t, old, syscall.SIGKILL)
			b.await(fmt.Sprintf(`%s !== '%d' && %s === 'running'`, pidOf("mail/0"), old, text(`#tree tr[data-name="mail/0"] .chip`)))
		}
		b.await(alerted("mail has 0 of 2 restarts left"))
	})
	t.Run("reload", func(t *testing.T) {
		if err := os.WriteFile(spoiled, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		b.click(`[data-act="reload"]`, "#ask-yes")
		b.await(alerted("The last reload, at "))
		b.await(alerted("the post office is closed"))
		b.await(text("#progress-text") + ".includes('It failed and went back')")
		if err := os.Remove(spoiled); err != nil {
			t.Fatal(err)
		}
		b.click(`[data-act="reload"]`, "#ask-yes")
		b.await("!" + alerted("The last reload"))
	})
	t.Run("listener", func(t *testing.T) {
		row := `{"name":"%s","network":"tcp","address":"127.0.0.1:80","policy":"hash",%s}`
		w.fail(answers("/v1/listeners", "["+fmt.Sprintf(row, "gone", `"refuses":true`)+","+fmt.Sprintf(row, "held", `"paused":true`)+","+
			fmt.Sprintf(row, "slow", `"counts":{"accepted":9,"claimed":2,"waiting":7,"queue_age_seconds":3,"turned_away":0,"reset":0,"dropped":0,"errors":0}`)+"]"))
		b.await(alerted("gone refuses all connections"))
		b.await(alerted("held is paused: new connections wait"))
		b.await(alerted("Connections wait at slow"))
		accessible(t, b)
		rows := ""
		for i := range 50 {
			rows += fmt.Sprintf(row, fmt.Sprint("many", i), `"paused":true`) + ","
		}
		w.fail(answers("/v1/listeners", "["+strings.TrimSuffix(rows, ",")+"]"))
		b.await(text("#alerts") + `.match(/And \d+ more\.$/) && document.querySelectorAll('#alerts p').length === 11`)
		w.fail(nil)
		b.await("!" + alerted("many"))
	})
	b.clean(failed)
}

// TestFaults: the page says when it knows nothing new, comes again by itself, has missed nothing, and
// runs nothing that a tree names.
func TestFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s, b := start(t), open(t)
	w := newWay(t, s.ops)
	link := func(says string) { b.await(text("#link") + fmt.Sprintf(".includes(%q)", says)) }
	b.do(chromedp.Navigate(w.url + "#/%zz")) // what a user may type
	link("live")
	b.do(chromedp.Navigate(w.url + "#/"))
	b.await(allRun)
	b.eval("window.same = true")

	busy := func(rw http.ResponseWriter, _ *http.Request) bool {
		rw.Header().Set("Content-Type", "application/json")
		rw.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(rw, `{"status":503,"error":"control: too many connections"}`)
		return true
	}
	killed := func() {
		t.Helper()
		old := s.pid(b, "web/0")
		s.kill(t, old, syscall.SIGKILL)
		b.await(fmt.Sprintf(`%s !== '%d' && %s`, pidOf("web/0"), old, allRun))
	}
	t.Run("busy", func(t *testing.T) {
		w.fail(busy)
		link("control: too many connections")
		w.fail(nil)
		link("live")
		killed()
	})
	t.Run("hung", func(t *testing.T) {
		b.eval("AbortSignal.whole = AbortSignal.timeout, AbortSignal.timeout = (ms) => AbortSignal.whole(ms / 20)")
		w.fail(func(_ http.ResponseWriter, r *http.Request) bool {
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		})
		link("no answer within 10 s")
		b.eval("AbortSignal.timeout = AbortSignal.whole")
		w.fail(nil)
		link("live")
		killed()
	})
	t.Run("not a tree", func(t *testing.T) {
		w.fail(func(rw http.ResponseWriter, r *http.Request) bool {
			if r.FormValue("follow") != "" {
				return false
			}
			fmt.Fprint(rw, "<html>log in, please")
			return true
		})
		link("an answer that is none of a tree")
		w.fail(nil)
		link("live")
		b.await(allRun)
	})
	t.Run("part", func(t *testing.T) { // that fails beside what works is said until it works
		w.fail(answers("/v1/tree", "{"))
		link("an answer that is none of a tree")
		b.eval(`new Promise((done) => new PerformanceObserver((list) => { if (list.getEntries().some((e) => e.name.endsWith('v1/workers'))) requestAnimationFrame(() => requestAnimationFrame(done)); }).observe({ type: 'resource' }))`)
		link("an answer that is none of a tree")
		w.fail(nil)
		link("live")
	})
	t.Run("no events", func(t *testing.T) {
		w.fail(func(rw http.ResponseWriter, r *http.Request) bool { return r.FormValue("follow") != "" && busy(rw, r) })
		link("No events since")
		b.eval("document.querySelectorAll('#events li').forEach((l) => { l.old = true })")
		s.kill(t, s.pid(b, "web/1"), syscall.SIGKILL)
		w.fail(nil)
		link("live")
		for _, what := range []string{"exited", "restarting", "started"} {
			b.await(fmt.Sprintf("[...document.querySelectorAll('#events li')].filter((l) => !l.old && l.innerText.includes('web/1') && l.innerText.includes(' %s')).length === 1", what))
		}
		b.await(allRun)
	})
	t.Run("hostile names", func(t *testing.T) {
		const name = `<img src=x onerror='window.hurt=1'>`
		row := fmt.Sprintf(`"name":"%[1]s","role":"worker","state":"x\" onclick=\"window.hurt=1","id":99,"pid":1,"last_exit":"%[1]s","unwell":"%[1]s"`, name)
		w.fail(func(rw http.ResponseWriter, r *http.Request) bool {
			return answers("/v1/tree", `{"name":"master","role":"master","state":"running","children":[{`+row+`}]}`)(rw, r) ||
				answers("/v1/workers", `[{`+row+`}]`)(rw, r) || answers("/v1/listeners", `[{"name":"`+name+`","network":"tcp","address":"`+name+`","policy":"`+name+`","refuses":true}]`)(rw, r)
		})
		b.await(alerted("is unwell: <img"))
		b.await(text("#tree") + ".includes('<img')")
		b.click("#tree tbody tr:nth-child(2) a")
		b.await(text("#process-title") + ".includes('<img')")
		if v := b.eval("String(window.hurt) + document.querySelectorAll('main img').length"); v != "undefined0" {
			t.Error("a name was taken for a part of the page: ", v)
		}
		w.fail(nil)
		b.click(`#process a[href="#/"]`)
		b.await(allRun)
	})
	t.Run("another tree", func(t *testing.T) { // that begins between two looks
		if b.eval("window.same") != "true" {
			t.Error("the page was loaded again")
		}
		other := start(t)
		w.lead(t, other.ops)
		b.awaitPage("!window.same && " + text("#facts") + fmt.Sprintf(".includes('pid %d ')", other.PID()))
		b.await(allRun)
	})
	b.clean(failed)
}
