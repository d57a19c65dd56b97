package etcd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/etcd"
)

var membersFor = flag.Duration("members", 0, "how long TestMembers lasts; 0: one round of its faults")

const memberEnv = "COPPICE_TEST_ETCD_MEMBER"

// TestMain is a member of etcd where the variable says so: it runs until its stdin ends.
func TestMain(m *testing.M) {
	host := os.Getenv(memberEnv)
	if host == "" {
		flag.Parse()
		os.Exit(m.Run())
	}
	var seats map[string]string
	if err := json.Unmarshal([]byte(os.Getenv(memberEnv+"_SEATS")), &seats); err != nil {
		panic(err)
	}
	x := etcd.Embedded{Dir: host, Seats: seats, Log: os.Getenv(memberEnv + "_LOG")}
	if x.Log == "" {
		x.Log = "error"
	}
	e, err := x.Quick().Open(context.Background(), host)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("up")
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := e.Close(); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// members is an etcd of three processes, whose sockets are in one directory: no port is opened.
type members struct {
	t     *testing.T
	dir   string
	seats string
	cmds  map[string]*exec.Cmd
	stdin map[string]io.WriteCloser
}

func (m *members) start(host string) {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Dir, cmd.Stderr = m.dir, os.Stderr
	cmd.Env = append(os.Environ(), memberEnv+"="+host, memberEnv+"_SEATS="+m.seats)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.cmds[host], m.stdin[host] = cmd, stdin
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		m.t.Fatalf("member %s: %q, %v", host, line, err)
	}
}

func (m *members) signal(host string, s syscall.Signal) {
	m.t.Helper()
	if err := m.cmds[host].Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

func (m *members) kill(host string) {
	m.t.Helper()
	m.signal(host, syscall.SIGKILL)
	_ = m.cmds[host].Wait() // as it was killed
}

// TestMembers: registers and names are linearizable while members of an etcd of three processes are
// killed, stopped and started anew, one after the other. -members=10m plays rounds for so long.
func TestMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three processes of etcd")
	}
	t.Parallel() // it waits for elections
	m := &members{t: t, dir: shortDir(t), cmds: make(map[string]*exec.Cmd), stdin: make(map[string]io.WriteCloser)}
	names := []string{"a", "b", "c"}
	seats := make(map[string]string)
	for _, host := range names {
		seats[host] = "unix://" + host + ".peer:80"
	}
	text, err := json.Marshal(seats)
	if err != nil {
		t.Fatal(err)
	}
	m.seats = string(text)
	for _, host := range names {
		m.start(host)
	}
	t.Cleanup(func() {
		for _, host := range names {
			m.kill(host)
		}
	})
	h := newHistory()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	for i, host := range names {
		e, err := etcd.External{Endpoints: []string{"unix://" + filepath.Join(m.dir, host, "client.sock")}}.Open(ctx, host)
		if err != nil {
			t.Fatal(err)
		}
		h.start(t, ctx, &clients, e, host, i)
	}
	// progress waits until so many more operations have ended well since now, with whoever has a
	// majority.
	progress := func(n int) {
		t.Helper()
		count := func() int {
			h.mu.Lock()
			defer h.mu.Unlock()
			return min(h.done["read"], 10*(h.done["register"]-h.done["register in doubt"]))
		}
		from, limit := count(), time.After(time.Minute)
		for count() < from+n {
			select {
			case <-limit:
				t.Fatalf("no progress in a minute: %v", h.done)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	progress(20)
	begun := time.Now()
	for round := 0; round == 0 || time.Since(begun) < *membersFor; round++ {
		victim, other := names[round%3], names[(round+1)%3]
		m.kill(victim)
		progress(20) // by the two others
		m.start(victim)
		progress(20)
		m.signal(other, syscall.SIGSTOP)
		progress(20)
		m.signal(other, syscall.SIGCONT)
		progress(20)
	}
	cancel()
	clients.Wait()
	for _, wrong := range h.check() {
		t.Error(wrong)
	}
	t.Logf("%v", h.done)
}
