package actors_test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// A peerRole is what a process of a test does: it spawns its actors in s and returns. The process lives
// until the test ends or kills it.
type peerRole func(s *actors.System) error

// configurePeer may hold, by role, what changes the configuration of a peer's system. To be filled
// before [runTests].
var configurePeer = map[string]func(*actors.Config){}

const roleVariable = "ACTORS_TEST_ROLE"

// runTests is for TestMain: it runs the tests or, in a process that [startPeer] has started, the role
// that was asked for. It does not return.
func runTests(m *testing.M, roles map[string]peerRole) {
	f, env, ok, err := fdipc.Inherited()
	if err == nil && !ok {
		os.Exit(m.Run())
	}
	if err == nil {
		err = play(f, env, roles)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "actors test:", err)
		os.Exit(2)
	}
	os.Exit(0)
}

// play is the life of a peer: until its channel ends.
func play(f *os.File, env map[string]string, roles map[string]peerRole) error {
	role := roles[env[roleVariable]]
	if role == nil {
		return fmt.Errorf("no role %q", env[roleVariable])
	}
	address := env["ADDRESS"]
	incarnation, err := strconv.ParseUint(address, 10, 64)
	if err != nil {
		return err
	}
	cfg := actors.Config{Address: address, Incarnation: incarnation}
	if set := configurePeer[env[roleVariable]]; set != nil {
		set(&cfg)
	}
	s, err := actors.NewSystem(cfg)
	if err != nil {
		return err
	}
	if err := role(s); err != nil { // before the first frame
		return err
	}
	var attach error
	c, err := fdipc.New(f, fdipc.Config{
		Ready:   func(c *fdipc.Conn) { s.Uplink("0"); attach = s.Attach("0", 0, c) },
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { s.HandleFrame("0", f) },
	})
	if err != nil {
		return err
	}
	<-c.Done()
	return attach
}

// A peerProcess is a system in a process of its own, a child of a master in the test's process.
type peerProcess struct {
	Address string
	Pid     int

	cmd  *exec.Cmd
	conn *fdipc.Conn
	gone chan struct{} // closed when the master has detached it
}

// startPeer starts this test binary as a child of master, in a role given to [runTests], and waits
// until it is attached. Its address is id. It is killed at the end of the test.
func startPeer(t testing.TB, master *actors.System, id int, role string) *peerProcess {
	t.Helper()
	ours, theirs, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	p := &peerProcess{Address: strconv.Itoa(id), gone: make(chan struct{})}
	p.cmd = exec.Command(os.Args[0], "-test.run=^$")
	p.cmd.ExtraFiles = []*os.File{theirs}
	p.cmd.Env = append(os.Environ(), fdipc.Environ(3, map[string]string{roleVariable: role, "ADDRESS": p.Address})...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		ours.Close()
		t.Fatal(err)
	}
	p.Pid = p.cmd.Process.Pid
	ready := make(chan error, 1)
	ended := make(chan struct{})
	p.conn, err = fdipc.New(ours, fdipc.Config{
		Ready:   func(c *fdipc.Conn) { ready <- master.Attach(p.Address, uint64(id), c) },
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { master.HandleFrame(p.Address, f) },
		Closed:  func(*fdipc.Conn, error) { close(ended) },
	})
	if err != nil {
		t.Fatal(err)
	}
	// Reaps the process; ends when it has ended and its last frame was handled.
	go func() {
		reason := reasonOf(p.cmd.Wait(), p.cmd.ProcessState)
		p.conn.PeerGone()
		<-ended
		master.Detach(p.Address, reason)
		close(p.gone)
	}()
	t.Cleanup(p.Kill)
	if err := next(t, ready); err != nil {
		t.Fatal(err)
	}
	return p
}

// Received returns how many frames the master got from the process.
func (p *peerProcess) Received() int { return int(p.conn.Stats().FramesReceived) }

// Kill kills the process by SIGKILL and returns when the master has detached it.
func (p *peerProcess) Kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.gone
}

func reasonOf(err error, state *os.ProcessState) supervisor.Reason {
	if err == nil {
		return supervisor.Reason{Kind: supervisor.Normal}
	}
	if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return supervisor.Reason{Kind: supervisor.Signaled, Signal: int(w.Signal()), Core: w.CoreDump()}
	}
	return supervisor.Reason{Kind: supervisor.Exited, Code: state.ExitCode()}
}
