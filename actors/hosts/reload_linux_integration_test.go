//go:build linux

package hosts_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

const opsVar = "COPPICE_TEST_OPERATED" // a directory: the program is one of three that are operated

// operatedProgram is a host with two workers, whose configuration is the file config in a
// directory. By files there those with a configuration fail on a host, die when they are ready, or
// wait.
func operatedProgram() {
	name, network, dir := os.Getenv(hostVar), os.Getenv(netVar), os.Getenv(opsVar)
	peers := hosts.Static{}
	for i, host := range []string{"a", "b", "c"} {
		peers[host] = fmt.Sprint(network, ".", i+1, ":7400")
	}
	there := func(what string, w *coppice.Worker) bool {
		config, err := os.ReadFile(filepath.Join(dir, what+"-"+name))
		return err == nil && string(config) == string(w.Config())
	}
	await := func(ctx context.Context, file string) {
		for _, err := os.Stat(filepath.Join(dir, file)); err != nil && ctx.Err() == nil; _, err = os.Stat(filepath.Join(dir, file)) {
			time.Sleep(time.Millisecond)
		}
	}
	cfg := &hosts.Config{Cluster: "shop", Name: name, Listen: peers[name], Peers: peers}
	if name == "c" { // which leads the one reload with a host that does not answer
		cfg.SetOrderWait(2 * time.Second)
	}
	coppice.Main(coppice.Config{
		Hosts: cfg,
		Load:  func(context.Context) ([]byte, error) { return os.ReadFile(filepath.Join(dir, "config")) },
		Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if there("fails", w) {
					return errors.New("it is to fail")
				}
				for said := false; there("waits", w) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
					if !said {
						fmt.Println("waits for", string(w.Config()))
						said = true
					}
				}
				if err := w.Ready(); err != nil {
					return err
				}
				if there("crashes", w) && w.Name() == "web/0" {
					await(ctx, "last begins") // so its pool has been reloaded
					if os.Mkdir(filepath.Join(dir, "crashes once"), 0o700) == nil {
						return errors.New("it crashes once")
					}
					_ = os.Mkdir(filepath.Join(dir, "has crashed"), 0o700)
				}
				fmt.Println("runs", string(w.Config()))
				if there("dies", w) {
					time.Sleep(200 * time.Millisecond) // the reload is over by then, mostly
					return errors.New("it is to die")
				}
				<-ctx.Done()
				return nil
			}},
			coppice.Pool{Name: "last", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if there("crashes", w) {
					_ = os.Mkdir(filepath.Join(dir, "last begins"), 0o700)
					await(ctx, "has crashed")
				}
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}},
		},
	})
}

// operated are the three hosts, from outside.
type operated struct {
	t        *testing.T
	dir, net string
	programs map[string]*runtimetest.Program
}

func startOperated(t *testing.T) *operated {
	o := &operated{t, t.TempDir(), fmt.Sprintf("127.%d.%d", 1+os.Getpid()%200, 1+os.Getpid()/200%200), make(map[string]*runtimetest.Program)}
	o.put("config", "v1")
	for _, host := range []string{"a", "b", "c"} {
		o.start(host)
	}
	o.runs(map[string]string{"a": "v1", "b": "v1", "c": "v1"})
	for _, host := range []string{"a", "b", "c"} {
		o.reached(host)
	}
	return o
}

func (o *operated) start(host string) {
	o.programs[host] = runtimetest.Start(o.t, []string{opsVar + "=" + o.dir, netVar + "=" + o.net, hostVar + "=" + host, "COPPICE_CONTROL=" + o.socket(host)})
}

func (o *operated) socket(host string) string { return filepath.Join(o.dir, host+".sock") }

func (o *operated) put(file, text string) {
	o.t.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, file), []byte(text), 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *operated) remove(file string) {
	o.t.Helper()
	if err := os.Remove(filepath.Join(o.dir, file)); err != nil {
		o.t.Fatal(err)
	}
}

// do sends a request to the control endpoint of a host, and returns the answer.
func (o *operated) do(host, method, path string) (int, string) {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", o.socket(host))
	}}}
	req, err := http.NewRequest(method, "http://tree/v1/"+path, nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

func (o *operated) snapshot(host string) (m hosts.Members) {
	if code, text := o.do(host, "GET", "hosts"); code != http.StatusOK || json.Unmarshal([]byte(text), &m) != nil {
		return hosts.Members{}
	}
	return m
}

// reached waits until a host reaches the others, and their trees are there.
func (o *operated) reached(host string) (m hosts.Members) {
	o.t.Helper()
	runtimetest.Eventually(o.t, host+" sees all", func() bool {
		m = o.snapshot(host)
		return len(m.Hosts) == 3 && !slices.ContainsFunc(m.Hosts, func(h hosts.HostInfo) bool {
			return h.Tree == nil || h.Silent != "" || len(h.Tree.Reaches) != 2 || h.Tree.State != "running"
		})
	})
	return m
}

// runs waits until the workers of hosts run these configurations.
func (o *operated) runs(want map[string]string) {
	o.t.Helper()
	for host, config := range want {
		runtimetest.Eventually(o.t, host+" runs "+config, func() bool {
			last := make(map[string]string) // by slot
			for _, line := range o.programs[host].Lines() {
				if who, what, ok := strings.Cut(line, "| runs "); ok && strings.HasPrefix(who, "web/") {
					who, _, _ = strings.Cut(who, "#")
					last[who] = what
				}
			}
			return len(last) == 2 && last["web/0"] == config && last["web/1"] == config
		})
	}
}

// TestSnapshot: a host shows the trees of all. One that does not answer, and one that is dead, are
// shown as such, with what they have said last and when.
func TestSnapshot(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three programs")
	}
	o := startOperated(t)
	for _, h := range o.reached("a").Hosts {
		i := slices.IndexFunc(h.Tree.Pools, func(p hosts.PoolInfo) bool { return p.Path == "web" })
		if i < 0 {
			t.Fatalf("%s: %+v", h.Name, h.Tree)
		}
		if p := h.Tree.Pools[i]; p.Workers != 2 || p.Ready != 2 || p.Failed != 0 || !slices.Equal(p.Generations, []int{1}) || h.Tree.Generation != 1 {
			t.Errorf("%s: %+v", h.Name, p)
		}
	}
	o.programs["b"].Signal(syscall.SIGSTOP) // the master alone
	defer o.programs["b"].Signal(syscall.SIGCONT)
	o.programs["c"].Signal(syscall.SIGKILL)
	o.programs["c"].Wait()
	var b, c hosts.HostInfo
	runtimetest.Eventually(t, "two do not answer", func() bool {
		m := o.snapshot("a")
		if len(m.Hosts) == 3 {
			b, c = m.Hosts[1], m.Hosts[2]
		}
		return b.Silent != "" && c.State == hosts.HostUnreachable
	})
	if b.State != hosts.HostUp || !strings.Contains(b.Silent, "the other host does not answer") || b.Tree == nil || b.Asked.IsZero() {
		t.Errorf("a master that is stopped: %+v", b)
	}
	if c.Silent == "" || c.Tree == nil || c.Asked.IsZero() {
		t.Errorf("a host that is dead: %+v", c)
	}
}

// TestReload: hosts are reloaded one after the other. When one fails, at once or within the time in
// which it has to stay well, all go back. When one is killed midway, or the one that leads, the
// others stay as they are, the host whose turn it was goes back, and all can be reloaded again.
func TestReload(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three programs")
	}
	o := startOperated(t)
	reload := func(host, settle string) (int, string) { return o.do(host, "POST", "hosts/reload?settle="+settle) }
	all := func(config string) map[string]string { return map[string]string{"a": config, "b": config, "c": config} }
	o.put("config", "v2")
	if code, text := reload("a", "50ms"); code != http.StatusOK {
		t.Fatal(code, text)
	}
	o.runs(all("v2"))
	o.put("config", "v3")
	for what, settle := range map[string]string{"fails": "1ms", "dies": "2s&host=a&host=c"} {
		o.put(what+"-a", "v3") // whose turn is the last
		code, text := reload("a", settle)
		o.remove(what + "-a")
		back := map[string]string{"fails": "c, b have gone back", "dies": "; c have gone back"}[what]
		for _, says := range []string{"host a: ", back} {
			if code != http.StatusConflict || !strings.Contains(text, says) {
				t.Errorf("a host %s: %d %s", what, code, text)
			}
		}
		o.runs(all("v2"))
		if g := o.reached("b"); g.Hosts[0].Tree.Pools == nil {
			t.Errorf("%+v", g)
		}
	}
	// A worker that has failed before the reload has ended is no good either.
	o.put("crashes-b", "v3")
	if code, text := o.do("a", "POST", "hosts/reload?settle=1ms&host=b"); code != http.StatusConflict || !strings.Contains(text, "host b: after the reload: ") {
		t.Errorf("a worker crashes: %d %s", code, text)
	}
	o.remove("crashes-b")
	o.runs(all("v2"))
	// Masters are stopped: one whose host reloads is given up, and goes back when it goes on. The
	// other is not told that it is over, and asks when the next one comes.
	o.put("config", "v3")
	o.put("waits-b", "v3")
	stopped := make(chan string, 1)
	go func() {
		code, text := o.do("c", "POST", "hosts/reload?settle=1ms&host=a&host=b")
		stopped <- fmt.Sprint(code, " ", text)
	}()
	o.programs["b"].Await(`waits for v3`)
	o.programs["a"].Signal(syscall.SIGSTOP)
	o.programs["b"].Signal(syscall.SIGSTOP)
	if text := <-stopped; !strings.Contains(text, "409 ") || !strings.Contains(text, "host b is lost, and it is not known what it runs: the other host does not answer; a run the new program") {
		t.Errorf("masters are stopped: %s", text)
	}
	o.programs["a"].Signal(syscall.SIGCONT)
	o.programs["b"].Signal(syscall.SIGCONT)
	o.remove("waits-b")
	o.programs["b"].Await(`has given this one up`)
	o.runs(map[string]string{"a": "v3", "b": "v2"})
	o.put("config", "v2")
	if code, text := o.do("b", "POST", "hosts/reload?settle=1ms&host=a"); code != http.StatusOK {
		t.Errorf("after one that is over: %d %s", code, text)
	}
	o.runs(all("v2"))
	// Who has asked goes away while the second host reloads.
	o.put("config", "too late")
	o.put("waits-c", "too late")
	if code, text := o.do("a", "POST", "hosts/reload?settle=1ms&timeout=1s"); code == http.StatusOK {
		t.Error(text)
	}
	o.runs(all("v2"))
	// A host is killed while it reloads.
	o.put("config", "v3")
	midway := func(leader, config string) <-chan string {
		o.put("waits-c", config)
		end := make(chan string, 1)
		go func() {
			code, text := reload(leader, "1ms")
			end <- fmt.Sprint(code, " ", text)
		}()
		o.programs["c"].Await(`waits for ` + config)
		return end
	}
	end := midway("a", "v3")
	if code, text := reload("b", "1ms"); code != http.StatusConflict || !strings.Contains(text, "another reload of several hosts is under way; nothing was reloaded") {
		t.Errorf("beside another: %d %s", code, text)
	}
	o.programs["c"].Signal(syscall.SIGKILL)
	o.programs["c"].Wait()
	text := <-end
	for _, says := range []string{"409 ", "host c is lost", "b run the new program"} {
		if !strings.Contains(text, says) {
			t.Errorf("a host is killed: %s", text)
		}
	}
	o.runs(map[string]string{"a": "v2", "b": "v3"})
	if code, text := reload("a", "1ms"); code != http.StatusConflict || !strings.Contains(text, "host c is not reached") {
		t.Errorf("without one: %d %s", code, text)
	}
	o.remove("waits-c")
	o.start("c")
	o.runs(map[string]string{"c": "v3"})
	o.reached("a")
	// The one that leads is killed.
	o.put("config", "v4")
	midway("a", "v4")
	o.programs["a"].Signal(syscall.SIGKILL)
	o.programs["a"].Wait()
	o.programs["c"].Await(`reload failed`)
	o.remove("waits-c")
	o.runs(map[string]string{"b": "v4", "c": "v3"})
	o.start("a")
	o.reached("b")
	if code, text := o.do("b", "POST", "hosts/reload?settle=1ms&host=c"); code != http.StatusOK {
		t.Fatal(code, text)
	}
	o.runs(all("v4"))
}
