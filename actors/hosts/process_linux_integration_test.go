//go:build linux

package hosts_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

const (
	hostVar = "COPPICE_TEST_HOST"  // a or b
	netVar  = "COPPICE_TEST_NET"   // the first three numbers of the addresses
	certVar = "COPPICE_TEST_CERTS" // a directory
	// before the number of the host in the address where others find it; nothing: it is that alone
	peersVar = "COPPICE_TEST_PEERS"
)

func TestMain(m *testing.M) { runtimetest.Main(m, program) }

// program is a host. On b a worker has an actor, which one on a asks and watches.
func program() {
	if os.Getenv(opsVar) != "" {
		operatedProgram()
		return
	}
	if os.Getenv(groupVar) != "" {
		groupProgram()
		return
	}
	name, network, certs := os.Getenv(hostVar), os.Getenv(netVar), os.Getenv(certVar)
	others := network + "." + os.Getenv(peersVar)
	cfg := coppice.Config{Hosts: &hosts.Config{
		Cluster: "shop", Name: name, Listen: network + "." + map[string]string{"a": "1", "b": "2"}[name] + ":7400",
		Peers: hosts.Static{"a": others + "1:7400", "b": others + "2:7400"},
		TLS:   hosts.TLS{Cert: filepath.Join(certs, name+".pem"), Key: filepath.Join(certs, name+".key"), CA: filepath.Join(certs, "ca.pem")},
	}}
	run := serve
	if name == "a" {
		run = watch
	}
	size := 1
	if os.Getenv(benchVar) != "" {
		size = 2
		if run = benchServe; name == "a" {
			run = bench
		}
	}
	cfg.Children = []coppice.ChildSpec{
		coppice.Pool{Name: "web", Size: size, Worker: run},
		coppice.Func{Name: "told", Run: func(ctx context.Context) error { return tellPIDs(ctx, coppice.Running()) }},
	}
	coppice.Main(cfg)
}

func serve(ctx context.Context, w *coppice.Worker) error {
	_, err := w.System().Spawn(ctx, "echo", func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			if s, ok := c.Message().(string); ok {
				c.Respond(s)
			}
		})
	})
	if err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// watch prints each time that the actor of the other host answers, and how it ends.
func watch(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	var former []*actor.PID
	for n := 1; ctx.Err() == nil; n++ {
		s := w.System()
		pid := await(ctx, s)
		if pid == nil {
			break
		}
		for _, p := range former {
			_, err := s.Ask(ctx, p, "x")
			fmt.Printf("former %s: %v\n", p.Address, err)
		}
		m := s.Monitor(pid)
		fmt.Printf("answer %d of %s, %d goroutines\n", n, pid.Address, runtime.NumGoroutine())
		select {
		case d := <-m.C:
			fmt.Printf("end %d: %v\n", n, d.Reason)
		case <-ctx.Done():
		}
		if len(former) == 0 || former[len(former)-1].Address != pid.Address {
			former = append(former, pid)
		}
	}
	return nil
}

// await returns the actor's PID when it has answered; nil when ctx has ended.
func await(ctx context.Context, s *actors.System) *actor.PID {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		if pid, err := s.Whereis(ctx, "@b/web/0/echo"); err == nil {
			if v, err := s.Ask(ctx, s.LookupAt("b", "web/0/echo"), "x"); err == nil && v == "x" {
				return pid
			}
		}
		<-tick.C
	}
	return nil
}

// tellPIDs prints the process number of each worker, whenever it changes.
func tellPIDs(ctx context.Context, rt *coppice.Runtime) error {
	told := map[string]int{}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		for _, pool := range rt.Snapshot().Children {
			for _, w := range pool.Children {
				if w.PID != 0 && w.State == "running" && told[w.Name] != w.PID {
					told[w.Name] = w.PID
					fmt.Printf("%s is %d\n", w.Name, w.PID)
				}
			}
		}
		<-tick.C
	}
	return nil
}

// certificates makes a CA and the certificates of two hosts.
func certificates(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	var ca *x509.Certificate
	var caKey *ecdsa.PrivateKey
	write := func(file, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range []string{"ca", "a", "b"} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert := &x509.Certificate{
			SerialNumber: big.NewInt(int64(i + 1)), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			URIs:        []*url.URL{{Scheme: "coppice", Host: "shop", Path: "/" + name}},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
		}
		if name == "ca" {
			cert.IsCA, cert.BasicConstraintsValid, cert.KeyUsage, cert.URIs = true, true, x509.KeyUsageCertSign, nil
			ca, caKey = cert, key
		}
		der, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		private, err := x509.MarshalECPrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		write(name+".pem", "CERTIFICATE", der)
		write(name+".key", "EC PRIVATE KEY", private)
	}
	return dir
}

// signal sends a signal to a process of a program.
func signal(t *testing.T, p *runtimetest.Program, name string, sig syscall.Signal) {
	t.Helper()
	pids := p.Await(`^` + name + ` is (\d+)$`)
	for _, l := range p.Lines() { // the latest
		if _, rest, ok := strings.Cut(l, name+" is "); ok {
			pids[1] = rest
		}
	}
	pid, err := strconv.Atoi(pids[1])
	if err == nil {
		err = syscall.Kill(pid, sig)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestTwoPrograms: two trees on two addresses, over TLS. A worker that is killed has its true
// reason at the other host; a gateway that is killed makes it unreachable for a moment; and a
// program that is killed and started again is another boot.
func TestTwoPrograms(t *testing.T) {
	network := fmt.Sprintf("127.%d.%d", 1+os.Getpid()%200, 1+os.Getpid()/200%200)
	env := []string{netVar + "=" + network, certVar + "=" + certificates(t), "COPPICE_CONTROL=off"}
	start := func(name string) *runtimetest.Program {
		return runtimetest.Start(t, append(env, hostVar+"="+name))
	}
	a, b := start("a"), start("b")
	kill := func(p *runtimetest.Program, name string) { signal(t, p, name, syscall.SIGKILL) }
	a.Await(`answer 1 of`)
	kill(b, "web/0")
	if end := a.Await(`end 1: (.*)$`)[1]; end != "signal 9 (killed)" {
		t.Errorf("the end of a worker: %s", end)
	}
	a.Await(`answer 2 of`)
	kill(b, "gateway/0")
	if end := a.Await(`end 2: (.*)$`)[1]; !strings.Contains(end, "unreachable") {
		t.Errorf("the end of a gateway: %s", end)
	}
	before := a.Await(`answer 3 of (.*),`)[1]
	b.Signal(syscall.SIGKILL)
	b.Wait()
	a.Await(`end 3: `) // unreachable, or shutdown, as a worker that has lost its master drains
	start("b")
	after := a.Await(`answer 4 of (.*),`)[1]
	if actors.Boot(before) == actors.Boot(after) {
		t.Errorf("the same boot after a new start: %s, %s", before, after)
	}
	a.Await(`former ` + before + `: .*host lost`)
}
