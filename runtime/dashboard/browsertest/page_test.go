package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

var screenshots = flag.String("screenshots", "", "make the pictures of the docs in this `directory`")

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// chromium returns the browser's path, or skips the test.
func chromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("COPPICE_BROWSER") == "required" {
		t.Fatal("no chromium")
	}
	t.Skip("no chromium: apt-get install chromium")
	return ""
}

// shop is the running tree.
type shop struct {
	*runtimetest.Program
	http, ops string // URLs
}

func start(t *testing.T, args ...string) shop {
	t.Helper()
	p := runtimetest.Start(t, nil, args...)
	return shop{p, p.Await(`^shop (http\S+)$`)[1], p.Await(`^page (http\S+)$`)[1]}
}

func (s shop) look() string { return strings.Replace(s.ops, "/ops/", "/look/", 1) }

// ask makes a request of the shop by a connection of its own; it may end with the worker.
func (s shop) ask(query string) {
	c := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	if resp, err := c.Get(s.http + "?" + query); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// browser is a tab, and what its console has said that is wrong.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	wrong []string
}

func open(t *testing.T) *browser {
	t.Helper()
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(chromium(t)),
		chromedp.NoSandbox, chromedp.WindowSize(1280, 900), chromedp.WSURLReadTimeout(runtimetest.Patience))...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	console := chromedp.Console(ctx)
	go func() { // ends with ctx
		for m, err := range console {
			if err != nil {
				return
			}
			if m.IsException() || m.Type == chromedp.ConsoleError || m.Type == chromedp.ConsoleWarning {
				b.mu.Lock()
				b.wrong = append(b.wrong, m.Text+" "+m.URL)
				b.mu.Unlock()
			}
		}
	}()
	return b
}

func (b *browser) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, runtimetest.Patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatal(err)
	}
}

// click clicks what each selector names, when it is there and nothing covers it. A mouse that is
// moved there would miss what a banner pushes away meanwhile.
func (b *browser) click(selectors ...string) {
	b.t.Helper()
	for _, s := range selectors {
		b.await(fmt.Sprintf(`(() => {
			const e = document.querySelector(%q);
			if (!e || e.disabled) return false;
			e.scrollIntoView({ block: 'center' });
			const box = e.getBoundingClientRect();
			if (!e.contains(document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2))) return false;
			e.click();
			return true;
		})()`, s))
	}
}

// eval returns the value of an expression as a text; of a promise, when it is kept.
func (b *browser) eval(expr string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, runtimetest.Patience)
	defer cancel()
	s, err := chromedp.Run(ctx, chromedp.Evaluate[string]("Promise.resolve("+expr+").then(String)", chromedp.EvalAwaitPromise))
	if err != nil {
		var seen string
		seen, _ = chromedp.Run(b.ctx, chromedp.Evaluate[string](`document.body.innerText`)) // the test fails anyway
		b.t.Fatalf("%s: %v\n%s\n%s", expr, err, strings.Join(b.wrong, "\n"), seen)
	}
	return s
}

// await waits until an expression is true in the page.
func (b *browser) await(expr string) {
	b.t.Helper()
	b.eval(`new Promise((done) => { const look = () => (` + expr + `) ? done() : setTimeout(look, 20); look(); })`)
}

// awaitPage is await for what may be true only after the page was loaded again.
func (b *browser) awaitPage(expr string) {
	b.t.Helper()
	runtimetest.Eventually(b.t, expr, func() bool {
		ok, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](expr))
		return err == nil && ok
	})
}

// emulate makes the tab one of a size, light or dark.
func (b *browser) emulate(scheme string, width, height int64) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	if err != nil {
		b.t.Fatal(err)
	}
	_, err = chromedp.Call(b.ctx, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500})
	if err != nil {
		b.t.Fatal(err)
	}
}

// text is an expression: what an element shows.
func text(selector string) string {
	return fmt.Sprintf("(document.querySelector(%q)?.innerText ?? '')", selector)
}

// clean fails if the console has an error or a warning that does not begin so: a violation of the
// policy is one.
func (b *browser) clean(but ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.wrong {
		if !slices.ContainsFunc(but, func(but string) bool { return strings.HasPrefix(s, but) }) {
			b.t.Error("the console: ", s)
		}
	}
}

const allRun = `[...document.querySelectorAll('#tree tr[data-name^="web/"] .chip')].length === 3 && [...document.querySelectorAll('#tree tr[data-name^="web/"] .chip')].every((c) => c.innerText === 'running')`

// TestPage: what an operator does with the page, in one visit without a reload of it.
func TestPage(t *testing.T) {
	s, b := start(t), open(t)
	b.do(chromedp.Navigate(s.ops))
	b.await(allRun)
	b.eval(`window.same = true`)
	pid := func() string { return b.eval(text(`#tree tr[data-name="web/0"] td:nth-of-type(3)`)) }

	t.Run("kill", func(t *testing.T) {
		old := pid()
		n, err := strconv.Atoi(old)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		b.await(fmt.Sprintf(`%s !== %q && %s`, text(`#tree tr[data-name="web/0"] td:nth-of-type(3)`), old, allRun))
		b.await(text("#events") + `.includes('SIGKILL') || ` + text("#events") + `.includes('killed')`)
	})

	t.Run("figures", func(t *testing.T) {
		for range 20 {
			s.ask("")
		}
		b.await(`Number(` + text(`#listeners tr[data-name="http"] td:nth-of-type(3)`) + `) >= 20`)
		b.await(text(`#tree tr[data-name="web/0"] td:nth-of-type(6)`) + `.includes('iB')`)
		b.await(`document.querySelector('#tree tr[data-name="web/0"] polyline').getAttribute('points').split(' ').length > 1`)
	})

	t.Run("reload", func(t *testing.T) {
		b.click(`[data-act="reload"]`, "#ask-yes")
		b.await(text("#progress-text") + `.includes('Generation 2 is there')`)
		b.await(`[...document.querySelectorAll('#progress-slots li')].length === 4 && [...document.querySelectorAll('#progress-slots li')].every((l) => l.innerText.includes('ready'))`)
		b.await(text("#said") + `.includes('done in')`)
	})

	t.Run("scale", func(t *testing.T) {
		b.click(`[aria-label="Scale web"]`)
		if size := b.eval(`document.getElementById('ask-size').value`); size != "3" {
			t.Errorf("the dialog begins with %s: want 3", size)
		}
		b.do(chromedp.SetValue(chromedp.CSS("#ask-size"), "4"))
		b.click("#ask-yes")
		b.await(text(`#tree tr[data-name="web/3"] .chip`) + ` === 'running'`)
	})

	t.Run("restart", func(t *testing.T) {
		old := pid()
		b.click(`[aria-label="Restart web/0"]`, "#ask-yes")
		b.await(fmt.Sprintf(`%s !== %q`, text(`#tree tr[data-name="web/0"] td:nth-of-type(3)`), old))
		b.await(text("#said") + `.includes('Restart web/0: done in')`)
	})

	t.Run("pause", func(t *testing.T) {
		b.click(`[aria-label="Pause http"]`, "#ask-no")
		b.click(`[aria-label="Pause http"]`, "#ask-yes")
		b.await(text("#alerts") + `.includes('http is paused')`)
		b.click(`[aria-label="Resume http"]`, "#ask-yes")
		b.await(`!` + text("#alerts") + `.includes('http is paused')`)
	})

	t.Run("two questions", func(t *testing.T) { // as when a check has answered while another dialog is open
		b.eval(`import('./steer.js').then((m) => { m.steer('pause', { listener: 'http' }); m.steer('stop', { process: 'web/0' }); })`)
		b.await(text("#ask-title") + ` === 'Pause http?' && document.querySelector('#ask').open`)
		b.click("#ask-no")
		b.await(text("#ask-title") + ` === 'Stop web/0?' && document.querySelector('#ask').open`)
		b.click("#ask-no")
		b.await(`!document.querySelector('#ask').open`)
	})

	t.Run("crash loop", func(t *testing.T) {
		for range 12 { // of four workers, so that one has three
			s.ask("crash=out+of+stock")
		}
		b.await(text("#alerts") + `.match(/keeps? ending/)`)
		b.await(`[...document.querySelectorAll('#tree tr[data-name^="web/"] .chip')].every((c) => c.innerText === 'running')`)
	})

	t.Run("hostile lines", func(t *testing.T) {
		const hostile = `<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>`
		b.click(`#tree tr[data-name="web/0"] a`)
		for b.eval(`String(document.querySelector('#process pre[role=log]')?.innerText.includes('</script>'))`) != "true" {
			s.ask("say=" + url.QueryEscape(hostile)) // of one of four workers; this one may be starting
		}
		if v := b.eval("window.hurt"); v != "undefined" {
			t.Error("what a worker printed has run")
		}
		b.await(text("#process details summary") + `.includes('out of stock')`)
		b.click("#process summary")
		b.await(`[...document.querySelectorAll('#process details pre')].some((p) => p.innerText.includes('goroutine'))`)
		b.click("#process .buttons button")
		b.await(`document.querySelector('#process').innerText.includes('Stacks at') && document.querySelector('#process').innerText.includes('goroutine 1')`)
		b.click(`[aria-label="State of stock"]`)
		b.await(text("#process-actors") + `.includes('7 apples')`)
		b.click(`[aria-label="Messages of stock in 5 s"]`)
		for b.eval(text("#process-actors")+`.includes('main.order')`) != "true" {
			s.ask("")
		}
		accessible(t, b)
		b.click(`#process a[href="#/"]`)
		b.await(allRun4)
	})

	t.Run("accessible", func(t *testing.T) { accessible(t, b) })
	if b.eval("window.same") != "true" {
		t.Error("the page was loaded again")
	}
	b.clean()
	s.Signal(syscall.SIGKILL)
	s.Wait()
	b.await(text("#link") + `.includes('Old data')`)
}

// TestJobs: the page shows what a pool of jobs has waiting, running and quarantined, and releases a
// key.
func TestJobs(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s, b := start(t, "-jobs"), open(t)
	b.do(chromedp.Navigate(s.ops))
	b.await(text("#keys") + `.match(/carts\/resize\s+b.png\s+2\s+0\s.*\s+exit code 3/) && document.querySelector('#runs').parentElement.hidden`)
	b.eval("fetch('/wait')")
	b.await(text("#jobs") + `.match(/carts\/resize\s+1 \(.*s\)\s+1\s+1\s+0\s+1\s+died 2/)`)
	b.await(text("#runs") + `.match(/carts\/resize\/workers\/0\s+resize\s.*s\s+1\s+a.png/)`)
	b.await(text("#keys") + `.match(/carts\/resize\s+b.png\s+2\s+0\s.*\s+exit code 3/)`)
	b.await(text(`#tree tr[data-name="queue"] .role`) + ` === 'actor · jobs: 1 waiting, 1 running, 1 quarantined'`)
	b.await(text("#alerts") + `.includes('carts/resize refuses the calls of 1 key, for which workers died.')`)
	accessible(t, b)
	b.click(`[aria-label="Release b.png"]`, "#ask-yes")
	b.await(text("#said") + `.includes('Release b.png: done in') && document.querySelector('#keys').closest('section').hidden`)
	b.await(text("#events") + `.includes('actors/operate actor=carts/resize/queue do=release what=b.png')`)
	b.clean()
}

// TestJudged: the page shows the requests that are refused for the deaths of workers, and releases
// and forgets a key; and a new generation that is judged, with both in numbers, until it is decided
// for.
func TestJudged(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s, b := start(t, "-judges"), open(t)
	die := func(key string) {
		s.http += key
		defer func() { s.http = strings.TrimSuffix(s.http, key) }()
		runtimetest.Eventually(t, key+" is refused", func() bool {
			c := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
			resp, err := c.Get(s.http + "?crash=poison")
			if err != nil {
				return false
			}
			defer resp.Body.Close()
			return resp.StatusCode == http.StatusServiceUnavailable
		})
	}
	b.do(chromedp.Navigate(s.ops))
	b.await(allRun + ` && document.querySelector('#keys').closest('section').hidden`)
	die("a")
	die("b")
	b.await(text("#keys") + `.match(/web\s+GET \/a\s+[23]\s+\d+\s.* s\s.*\s+exit code 2: panic: poison/)`)
	b.await(text("#alerts") + `.includes('web refuses the requests of 2 keys, for which workers died.')`)
	accessible(t, b)
	b.click(`[aria-label="Release GET /a"]`, "#ask-yes")
	b.await(text("#keys") + `.includes('GET /b') && !` + text("#keys") + `.includes('GET /a')`)
	b.click(`[aria-label="Forget GET /b"]`, "#ask-yes")
	b.await(`document.querySelector('#keys').closest('section').hidden`)
	b.await(text("#events") + `.includes('web quarantine ("GET /b": an operator asked to forget it)')`)

	b.click(`[data-act="reload"]`, "#ask-yes")
	b.await(text("#canaries") + `.match(/web\s+generation 2 is judged, 1 of 3 slots: new and old: 0 and \d crashes, \d+ and \d+ requests/)`)
	accessible(t, b)
	b.click(`[aria-label="Promote the new generation"]`, "#ask-yes")
	b.await(text("#events") + `.includes('web canary (forward: as an operator asked: new and old: ')`)
	b.await(`document.querySelector('#canaries').closest('section').hidden`)
	b.clean()
}

// TestUpgrade: the page says what an upgrade would change before it asks for it, follows it over
// the exec, and says how it ended.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s, b := start(t), open(t)
	w := newWay(t, s.ops)
	b.do(chromedp.Navigate(w.url))
	b.await(allRun)
	b.eval("window.same = true")
	b.click(`[data-act="upgrade"]`)
	b.await(text("#ask-text") + `.includes('carts/cart0 (Actor) runs in the master')`)
	accessible(t, b)
	b.click("#ask-no", `[data-act="upgrade"]`, "#ask-yes")
	b.await(text("#said") + `.includes('it is under way')`)
	runtimetest.Eventually(t, "the page of the new program", func() bool {
		pages := pagesOf(s)
		if len(pages) > 1 {
			w.lead(t, pages[1])
		}
		return len(pages) > 1
	})
	b.await(text("#progress-title") + ` === 'Upgrade' && ` + text("#progress-text") + `.match(/The new program is there, .* after its exec/)`)
	b.await(allRun)
	if b.eval("window.same") != "true" {
		t.Error("the page was loaded again")
	}
	b.clean(failed)
}

// pagesOf returns the URLs of the page that the master's images have printed.
func pagesOf(s shop) (urls []string) {
	for _, l := range s.Lines() {
		if u, is := strings.CutPrefix(l, "page "); is {
			urls = append(urls, u)
		}
	}
	return urls
}

var allRun4 = strings.Replace(allRun, "=== 3", "=== 4", 1)

// TestReadOnly: no part of the page steers.
func TestReadOnly(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s, b := start(t), open(t)
	b.do(chromedp.Navigate(s.look()))
	b.await(allRun)
	b.await(text("#facts") + `.includes('read-only')`)
	if n := b.eval(`document.querySelectorAll('[data-act], a[href*="bundle"]').length`); n != "0" {
		t.Errorf("%s buttons that steer", n)
	}
	b.click(`#tree tr[data-name="web/0"] a`)
	b.await(text("#process") + `.includes('Stacks')`)
	if n := b.eval(`document.querySelectorAll('[data-act], a[href*="pprof"]').length`); n != "0" {
		t.Errorf("%s buttons that steer a worker", n)
	}
	b.emulate("dark", 1280, 900)
	accessible(t, b)
	b.clean()
}

// TestLarge: 200 workers and 1,000 actors: the page is not busy.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	s, b := start(t, "-workers", "200", "-goroutines", "-actors", "1000"), open(t)
	b.do(chromedp.Navigate(s.look()))
	b.await(`document.querySelectorAll('#tree tr[data-name^="web/"]').length === 200`)
	b.await(`document.querySelectorAll('#actors tbody tr').length === 100`)
	b.do(chromedp.SendKeys(chromedp.CSS("#actors-find"), "cart999"))
	b.await(`document.querySelectorAll('#actors tbody tr').length === 1`)
	made := b.eval(`new Promise((done) => {
		let made = 0, answers = 0;
		new MutationObserver((list) => { for (const m of list) if (m.target.nodeName === 'TBODY') made += m.addedNodes.length; }).observe(document.getElementById('tree'), { subtree: true, childList: true });
		new PerformanceObserver((list) => {
			answers += list.getEntries().filter((e) => e.name.endsWith('v1/workers')).length;
			if (answers >= 3) done(made);
		}).observe({ type: 'resource' });
	})`)
	if made != "0" {
		t.Errorf("%s rows were made anew by three answers without a change", made)
	}
	b.clean()
}

// accessible runs axe-core, from npm, over what the page shows.
func accessible(t *testing.T, b *browser) {
	t.Helper()
	src := axe(t)
	if src == "" {
		t.Log("without axe-core: npm cannot get it")
		return
	}
	b.do(chromedp.Evaluate[chromedp.Void](src + "\n;undefined"))
	result := b.eval(`axe.run(document, { resultTypes: ['violations'] }).then((r) => JSON.stringify(r.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical')
		.map((v) => v.id + ' (' + v.impact + '): ' + v.help + ': ' + v.nodes.slice(0, 5).map((n) => n.target + ' ' + n.failureSummary).join('; '))))`)
	var found []string
	if err := json.Unmarshal([]byte(result), &found); err != nil {
		t.Fatal(err)
	}
	for _, f := range found {
		t.Error("accessibility: ", f)
	}
}

const axeVersion = "4.14.1"

// axe returns the source of axe-core; npm gets it into the user's cache once. "" = it cannot.
var axe = func() func(*testing.T) string {
	var once sync.Once
	var source string
	return func(t *testing.T) string {
		once.Do(func() {
			cache, err := os.UserCacheDir()
			if err != nil {
				return
			}
			dir := filepath.Join(cache, "coppice-browsertest")
			archive := "axe-core-" + axeVersion + ".tgz"
			if _, err := os.Stat(filepath.Join(dir, archive)); err != nil {
				if err := os.MkdirAll(dir, 0o700); err != nil {
					return
				}
				get := exec.CommandContext(t.Context(), "npm", "pack", "--silent", "--pack-destination", dir, "axe-core@"+axeVersion)
				if out, err := get.CombinedOutput(); err != nil {
					t.Logf("npm: %v: %s", err, out)
					return
				}
			}
			b, err := exec.CommandContext(t.Context(), "tar", "-xzOf", filepath.Join(dir, archive), "package/axe.min.js").Output()
			if err == nil {
				source = string(b)
			}
		})
		return source
	}
}()

// TestScreenshots makes the pictures of the docs:
//
//	go test -c -o /tmp/shop . && /tmp/shop -test.run TestScreenshots -screenshots ../../../docs
func TestScreenshots(t *testing.T) {
	if *screenshots == "" {
		t.Skip("without -screenshots")
	}
	s, b := start(t), open(t)
	b.emulate("light", 1180, 900)
	b.do(chromedp.Navigate(s.ops))
	b.await(allRun)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // until the last picture
		defer close(stopped)
		for i := 0; ; i++ {
			for range 5 + i%7 {
				s.ask("")
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	longEnough := func(n int) {
		b.await(fmt.Sprintf(`document.querySelector('#tree tr[data-name="web/0"] polyline, #process polyline')?.getAttribute('points').split(' ').length >= %d`, n))
	}
	longEnough(25)
	b.click(`[data-act="reload"]`, "#ask-yes")
	b.await(text("#progress-text") + `.includes('Generation 2 is there')`)
	s.ask("crash=out+of+stock")
	longEnough(15)
	for _, p := range []struct {
		name, scheme  string
		width, height int64
		process       bool
	}{{"page-light", "light", 1180, 900, false}, {"page-dark", "dark", 1180, 900, false}, {"page-phone", "light", 400, 820, false}, {"page-worker", "dark", 1180, 760, true}} {
		b.emulate(p.scheme, p.width, p.height)
		if p.process {
			name := b.eval(`[...document.querySelectorAll('#tree tr[data-name^="web/"]')].find((r) => r.innerText.includes('before:')).dataset.name`)
			b.do(chromedp.Navigate(s.ops + "#/" + name))
			b.await(text("#process details") + `.includes('out of stock')`)
			b.click("#process summary")
		}
		b.eval(`(document.getElementById('said').replaceChildren(), window.scrollTo(0, 0))`)
		png, err := chromedp.Run(b.ctx, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(*screenshots, p.name+".png"), png, 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d bytes", p.name, len(png))
	}
	close(stop)
	<-stopped
}
