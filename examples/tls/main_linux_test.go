package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

const workers = 4

func start(t *testing.T) (p *runtimetest.Program, url string) {
	t.Helper()
	p = runtimetest.Start(t, nil, "-addr", "127.0.0.1:0")
	return p, p.Await(`^(https://[^/]+/)`)[1]
}

// kill ends a worker with −9 and waits for its replacement.
func kill(t *testing.T, p *runtimetest.Program) {
	t.Helper()
	kids := runtimetest.Children(t, p.PID()) // the listener process, and the workers
	pid := kids[len(kids)-1]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "a replacement", func() bool {
		return !runtimetest.Alive(pid) && len(runtimetest.Children(t, p.PID())) == len(kids)
	})
}

// visitor is a client that remembers its session, and has one connection at a time.
type visitor struct {
	http.Client
	resumed int
	met     map[string]bool // "web/0 of generation 1"
}

func newVisitor(version uint16) *visitor {
	return &visitor{met: map[string]bool{}, Client: http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify: true, MaxVersion: version, ClientSessionCache: tls.NewLRUClientSessionCache(1),
		},
	}}}
}

// visit makes n connections.
func (v *visitor) visit(t *testing.T, url string, n int) {
	for i := range n {
		resp, err := v.Get(url)
		if err != nil {
			t.Errorf("connection %d: %v", i, err)
			return
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		who, _, ok := strings.Cut(string(answer), ":")
		if err != nil || !ok {
			t.Errorf("connection %d: %q, %v", i, answer, err)
			return
		}
		v.met[who] = true
		if resp.TLS.DidResume {
			v.resumed++
		}
	}
}

// TestResume makes 1,000 connections of eight clients to four workers. Between the
// quarters a worker is killed, the program is reloaded, and another is killed: every
// connection but each client's first resumes a session.
func TestResume(t *testing.T) {
	const connections, clients = 1000, 8
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			p, url := start(t)
			var visitors []*visitor
			for range clients {
				visitors = append(visitors, newVisitor(version))
			}
			quarter := func() {
				var running sync.WaitGroup
				for _, v := range visitors {
					running.Go(func() { v.visit(t, url, connections/clients/4) })
				}
				running.Wait()
			}
			quarter()
			kill(t, p)
			quarter()
			p.Signal(syscall.SIGHUP)
			p.Await(`reloaded generation=2 `)
			quarter()
			kill(t, p)
			for _, v := range visitors { // the rest
				v.visit(t, url, connections/clients-3*(connections/clients/4))
			}
			resumed, met := 0, map[string]bool{}
			for _, v := range visitors {
				resumed += v.resumed
				for who := range v.met {
					met[who] = true
				}
			}
			t.Logf("%d of %d connections resumed, with %d workers of two generations", resumed, connections, len(met))
			if resumed != connections-clients {
				t.Errorf("%d of %d resumed, want all but %d", resumed, connections, clients)
			}
			if len(met) != 2*workers {
				t.Errorf("met %v, want %d workers of each generation", met, workers)
			}
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestHTTP2: clients that keep a connection of HTTP/2 ask and send over it, several at once,
// while the program is reloaded again and again. Each reload moves them to new workers by
// GOAWAY: what the old ones had not begun is asked again of the new ones, and nothing fails.
func TestHTTP2(t *testing.T) {
	const clients, atOnce = 4, 3
	reloads := 5
	if os.Getenv("COPPICE_SOAK") != "" {
		reloads = 20
	}
	p, url := start(t)
	var (
		running    sync.WaitGroup
		answers    atomic.Int64
		generation [clients]atomic.Int64 // that each client has heard last
		done       = make(chan struct{})
	)
	for i := range clients {
		client := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{
			ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}}
		t.Cleanup(client.CloseIdleConnections)
		ask := func() error {
			resp, err := client.Post(url, "text/plain", strings.NewReader("hello"))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			answer, err := io.ReadAll(resp.Body)
			if err != nil || resp.ProtoMajor != 2 {
				return fmt.Errorf("%s: %w", resp.Proto, err)
			}
			var who string
			var g int64
			if _, err := fmt.Sscanf(string(answer), "%s of generation %d:", &who, &g); err != nil {
				return fmt.Errorf("%q: %w", answer, err)
			}
			answers.Add(1)
			generation[i].Store(g)
			return nil
		}
		for range atOnce {
			running.Go(func() {
				for {
					select {
					case <-done:
						return
					default:
					}
					if err := ask(); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	examplestest.Reload(t, p, reloads, func(g int) bool {
		for i := range generation {
			if generation[i].Load() != int64(g) {
				return t.Failed()
			}
		}
		return true
	})
	close(done)
	running.Wait()
	t.Logf("%d reloads: %d answers over HTTP/2", reloads, answers.Load())
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestOpenSSL: a client that is not Go's resumes, too, with whichever worker answers.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here")
	}
	p, url := start(t)
	addr := strings.TrimSuffix(strings.TrimPrefix(url, "https://"), "/")
	for _, version := range []string{"-tls1_2", "-tls1_3"} {
		session := t.TempDir() + "/session"
		ask := func(args ...string) string {
			t.Helper()
			cmd := exec.Command(openssl, append([]string{"s_client", "-connect", addr, version, "-ign_eof", "-sess_out", session}, args...)...)
			cmd.Stdin = strings.NewReader("GET / HTTP/1.0\r\n\r\n")
			out, err := cmd.CombinedOutput()
			answer := regexp.MustCompile(`web/\d of generation \d: .*`).FindString(string(out))
			if err != nil || answer == "" {
				t.Fatalf("openssl %s: %v: %s", version, err, out)
			}
			return answer
		}
		if a := ask(); !strings.Contains(a, "new session") {
			t.Errorf("%s: the first says %q", version, a)
		}
		for range 2 * workers {
			if a := ask("-sess_in", session); !strings.Contains(a, "resumed") {
				t.Errorf("%s: %q", version, a)
			}
		}
		kill(t, p)
		for range workers {
			if a := ask("-sess_in", session); !strings.Contains(a, "resumed") {
				t.Errorf("%s, after a kill: %q", version, a)
			}
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestChaos: the program harms itself, and loses nothing that it should not.
func TestChaos(t *testing.T) { examplestest.Chaos(t, "-addr", "127.0.0.1:0") }
