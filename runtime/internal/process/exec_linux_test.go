package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/image"
	"github.com/coppice-go/coppice/runtime/internal/mark"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
)

var execs = flag.Int("execs", 20, "how often TestExec replaces the program")

// A replaced is the program of the tests of exec: it replaces itself again and again while its
// children print, and says at the end what it has seen.
type replaced struct {
	replacedState
	exe    *Executable
	kids   []*replacedKid
	victim *Process
	heard  chan os.Signal
	first  atomic.Int64 // when the first line came
	ending atomic.Bool  // the children are being killed: the last line of each is not whole
	mode   string
}

// replacedState goes from image to image.
type replacedState struct {
	Execs, Want int
	Kids        []*replacedKid
	Victim      ChildState
	Exe         ExecutableState
	FDs         int             // of the first image
	Gaps        []time.Duration // from the exec to the first line
	Heard       int             // images that have got a signal
	Strays      int             // children that the image before left
	Bad         []string        // what must not be
	Tested      []string        // bad programs whose exec was tried
}

type replacedKid struct {
	Process ChildState
	Output  LinesState
	Next    int    // the number of the next line
	Piece   string // of the line that has begun

	proc  *Process
	lines *Lines
	some  chan struct{} // closed when lines have come in this image
	left  int           // lines until then
}

func (m *replaced) bad(format string, args ...any) {
	m.Bad = append(m.Bad, fmt.Sprintf("exec %d: ", m.Execs)+fmt.Sprintf(format, args...))
}

func init() {
	programs["replaced"] = func() {
		m := &replaced{mode: os.Getenv("MODE"), heard: make(chan os.Signal, 1)}
		if m.mode == "signals" {
			signal.Notify(m.heard, unix.SIGHUP, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2)
		}
		if image.Replaced() {
			m.restore()
		} else {
			m.begin()
		}
		m.run()
	}
	// prints prints numbered lines, which often stand half in the pipe.
	programs["prints"] = func() {
		var b bytes.Buffer
		tick := time.NewTicker(time.Millisecond)
		for n := 0; ; {
			for ; b.Len() < 3000; n++ {
				b.WriteString(replacedLine(n) + "\n")
			}
			must2(os.Stdout.Write(b.Next(1777)))
			<-tick.C
		}
	}
}

func must2(_ int, err error) { must(err) }

// replacedLine is line n of a child. Some do not fit in the buffer of the reader.
func replacedLine(n int) string {
	length := n % 200
	if n%40 == 7 {
		length = readSize + readSize/2
	}
	return fmt.Sprintf("%d %s", n, strings.Repeat("x", length))
}

func (m *replaced) begin() {
	var err error
	m.Want, err = strconv.Atoi(os.Getenv("EXECS"))
	must(err)
	m.exe, err = Self()
	must(err)
	must(m.exe.StartIn("."))
	for range 2 {
		k := &replacedKid{}
		r, w, err := OutputPipe()
		must(err)
		k.proc, err = Start(Command{
			Executable: m.exe, Args: []string{"prints"}, Env: []string{programVar + "=prints"},
			Files: []*os.File{nil, w, os.Stderr}, DeathSignal: unix.SIGKILL,
		})
		must(err)
		must(w.Close())
		k.prepare()
		k.lines = ReadLines(r, readSize, m.line(k))
		m.kids = append(m.kids, k)
	}
}

// prepare has k wait for some lines. It is called before lines are read.
func (k *replacedKid) prepare() { k.some, k.left = make(chan struct{}), 5 }

// line checks a line: each comes once, whole.
func (m *replaced) line(k *replacedKid) func(line []byte, more bool) {
	return func(line []byte, more bool) {
		m.first.CompareAndSwap(0, int64(monotonic()))
		k.Piece += string(line)
		if more {
			return
		}
		if want := replacedLine(k.Next); k.Piece != want && !m.ending.Load() {
			fmt.Fprintf(os.Stderr, "exec %d: line %d of %d is %.60q (%d), want %.60q (%d)\n", m.Execs, k.Next, k.proc.PID(), k.Piece, len(k.Piece), want, len(want))
			os.Exit(3)
		}
		k.Next++
		k.Piece = ""
		if k.left--; k.left == 0 {
			close(k.some)
		}
	}
}

func monotonic() time.Duration {
	var now unix.Timespec
	must(unix.ClockGettime(unix.CLOCK_MONOTONIC, &now))
	return time.Duration(now.Nano())
}

func (m *replaced) restore() {
	file, fds, err := image.Inherited()
	must(err)
	var files []*os.File
	for _, fd := range fds {
		files = append(files, os.NewFile(uintptr(fd), ""))
	}
	must(json.NewDecoder(file).Decode(&m.replacedState))
	must(file.Close())
	m.Execs++
	if m.mode == "ignored" {
		m.actions("in init", "HUP ignored, INT caught, TTIN ignored, TTOU default")
	}
	if len(image.TakeSignals()) > 0 {
		m.Heard++
	}
	if m.mode == "ignored" {
		m.actions("later", "HUP ignored, INT default, TTIN ignored, TTOU default")
		signal.Notify(m.heard, unix.SIGTTIN)
	}
	if name, _ := os.ReadFile("/proc/self/comm"); string(name) != "replaced\n" {
		m.bad("the name is %q", name)
	}
	for _, v := range []string{"LISTEN_FDS", mark.Var} {
		if os.Getenv(v) != "" {
			m.bad("%s is set", v)
		}
	}
	for v := range strangersLeft.Range { // of the image before, besides the children that go on
		pid := v.(int)
		if slices.ContainsFunc(m.Kids, func(k *replacedKid) bool { return k.Process.PID == pid }) || pid == m.Victim.PID {
			continue
		}
		m.Strays++
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, l := range links {
			if to, _ := os.Readlink(l); strings.HasPrefix(to, "/memfd:") || strings.Contains(to, "pidfd") {
				m.bad("a process that other code started has %s", to)
			}
		}
	}
	if m.mode == "off main" { // nothing of it is on the main goroutine
		done := make(chan struct{})
		go func() { defer close(done); m.offMain() }()
		<-done
	}
	must(PrepareExec())
	m.exe, err = RestoreExecutable(m.Exe, files[:2])
	must(err)
	if m.Victim.Ended {
		m.bad("the victim ended before the exec")
	}
	m.victim, err = Restore(m.Victim, files[2])
	must(err)
	m.victim.Resume()
	for i, k := range m.Kids {
		k.proc, err = Restore(k.Process, files[3+2*i])
		must(err)
		k.prepare()
		k.lines, err = RestoreLines(k.Output, files[4+2*i], readSize, m.line(k))
		must(err)
		m.kids = append(m.kids, k)
	}
	for _, k := range m.kids {
		k.proc.Resume()
		k.lines.Resume()
	}
	select {
	case <-m.victim.Done():
	case <-time.After(patience):
		m.bad("the victim does not end")
	}
	if e := m.victim.Exit(); e.Code != 7 {
		m.bad("the victim ended with %+v", e)
	}
	must(m.victim.Close())
}

// actions checks what signals do.
func (m *replaced) actions(when, want string) {
	var got []string
	for _, sig := range []syscall.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTTIN, unix.SIGTTOU} {
		var act image.Action
		_ = image.Sigaction(sig, nil, &act)
		what := "caught"
		switch {
		case act.IsDefault():
			what = "default"
		case act.Ignores():
			what = "ignored"
		}
		got = append(got, strings.TrimPrefix(unix.SignalName(sig), "SIG")+" "+what)
	}
	if got := strings.Join(got, ", "); got != want {
		m.bad("%s: %s, want %s", when, got, want)
	}
}

// offMain says what becomes of a tree that is started off the main goroutine.
func (m *replaced) offMain() {
	fmt.Println(PrepareExec())
	p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}, DeathSignal: unix.SIGKILL})
	must(err)
	<-p.Done()
	fmt.Println(p.Exit().Code)
	s, err := Suspend(context.Background())
	must(err)
	fmt.Println(s.Exec(context.Background(), Image{Args: []string{"next"}}))
	os.Exit(0)
}

func (m *replaced) run() {
	reaper, err := StartReaper(slog.New(slog.DiscardHandler), false, time.Millisecond)
	must(err)
	switch m.mode {
	case "os/exec":
		for range 2 {
			go func() { // ends with the image
				for {
					_ = exec.Command("/bin/true").Run()
				}
			}()
		}
		must(exec.Command("/bin/sh", "-c", "sleep 0.01").Start()) // nothing waits for it
	case "starts":
		go func() { // ends with the image
			for {
				p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}, DeathSignal: unix.SIGKILL})
				must(err)
				<-p.Done()
				if p.Exit().Code != 0 {
					fmt.Fprintf(os.Stderr, "%+v\n", p.Exit())
					os.Exit(4)
				}
				must(p.Close())
			}
		}()
	case "profile":
		must(pprof.StartCPUProfile(&bytes.Buffer{}))
		go func() { // ends with the image
			for {
				runtime.Gosched()
			}
		}()
	}
	for _, k := range m.kids {
		select {
		case <-k.some:
		case <-k.proc.Done():
			m.bad("%d ended with %+v", k.proc.PID(), k.proc.Exit())
		case <-time.After(patience):
			m.bad("no lines")
		}
	}
	if image.Replaced() {
		m.Gaps = append(m.Gaps, time.Duration(m.first.Load())-image.At())
	}
	select {
	case <-m.heard:
		m.Heard++
	default:
	}
	if m.mode == "ignored" && m.Execs == 0 {
		signal.Notify(m.heard, unix.SIGTTIN)
	}
	if m.mode == "signals" && m.Execs == 0 {
		fmt.Println("{}") // from now on
	}
	if m.Execs >= m.Want || len(m.Bad) > 0 {
		m.finish(reaper)
		return
	}
	must(reaper.Close())
	// The victim ends when its input does, in the exec.
	var pipe [2]int
	must(unix.Pipe2(pipe[:], unix.O_CLOEXEC)) // it blocks, as sh expects
	in, open := os.NewFile(uintptr(pipe[0]), "in"), os.NewFile(uintptr(pipe[1]), "in")
	m.victim, err = Start(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "read x; exit 7"}, Files: []*os.File{in}, DeathSignal: unix.SIGKILL})
	must(err)
	must(in.Close())
	if m.mode == "" || m.Execs == 0 {
		n := len(descriptors(os.Getpid()))
		if m.Execs == 0 {
			m.FDs = n
		} else if n != m.FDs {
			m.bad("%d descriptors, want %d: %s", n, m.FDs, descriptors(os.Getpid()))
		}
	}
	if dir := os.Getenv("BAD"); dir != "" {
		names, err := filepath.Glob(filepath.Join(dir, "*/*"))
		must(err)
		for _, name := range names {
			m.refused(name)
		}
	}
	fmt.Fprintln(os.Stderr, m.exec(m.exe), open) // it has not happened
	os.Exit(5)
}

// exec suspends all and execs the next image.
func (m *replaced) exec(exe *Executable) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := Suspend(ctx)
	must(err)
	defer s.Resume()
	var files []*os.File
	m.Exe, files = m.exe.Suspend()
	var f *os.File
	m.Victim, f = m.victim.Suspend()
	defer m.victim.Resume()
	files = append(files, f)
	for _, k := range m.kids {
		k.Process, f = k.proc.Suspend()
		defer k.proc.Resume()
		var r *os.File
		k.Output, r, err = k.lines.Suspend(ctx)
		must(err)
		defer k.lines.Resume()
		files = append(files, f, r)
	}
	m.Kids = m.kids
	b, err := json.Marshal(m.replacedState)
	must(err)
	state, err := memfile.Sealed("state", b)
	must(err)
	defer state.Close()
	raw, err := rawFDs(files)
	must(err)
	next := Image{Executable: exe, Args: []string{"replaced"}, Env: append(os.Environ(), "LISTEN_FDS=1"), State: state}
	for _, fd := range raw {
		next.FDs = append(next.FDs, int(fd))
	}
	return s.Exec(ctx, next)
}

// refused tries the exec of a program that fails: nothing has changed.
func (m *replaced) refused(path string) {
	facts := func() (all []string) {
		for sig := syscall.Signal(1); sig < 32; sig++ {
			var act image.Action
			_ = image.Sigaction(sig, nil, &act)
			all = append(all, fmt.Sprint(sig, act))
		}
		var l unix.Rlimit
		must(unix.Getrlimit(unix.RLIMIT_NOFILE, &l))
		all = append(all, fmt.Sprint(l))
		for fd := range 64 {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			all = append(all, fmt.Sprintf("descriptor %d %x %v", fd, flags, err))
		}
		return all
	}
	exe, err := OpenExecutable(path)
	must(err)
	if filepath.Base(filepath.Dir(path)) == "gone" {
		must(os.Remove(path))
	}
	before := facts()
	err = m.exec(exe)
	var name *os.PathError
	if !errors.As(err, &name) {
		m.bad("%s: %v", path, err)
	}
	for i, f := range facts() {
		if f != before[i] {
			m.bad("%s: %s, before %s", path, f, before[i])
		}
	}
	must(exe.Close())
	m.Tested = append(m.Tested, filepath.Base(filepath.Dir(path))+": "+name.Err.Error())
	p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}})
	must(err)
	<-p.Done()
	must(p.Close())
	select {
	case <-m.victim.Done():
		m.bad("the victim has ended with %+v", m.victim.Exit())
	default:
	}
}

func (m *replaced) finish(reaper *Reaper) {
	m.ending.Store(true)
	for _, k := range m.kids {
		must(k.proc.SignalGroup(unix.SIGKILL))
		<-k.proc.Done()
		if e := k.proc.Exit(); e.Signal != unix.SIGKILL {
			m.bad("%+v", e)
		}
		Finish(k.lines)
		must(k.proc.Close())
	}
	for until := time.Now().Add(patience / 4); m.mode != "starts" && m.mode != "os/exec"; { // no child is left
		if kids, _ := children(); len(kids) == 0 {
			break
		} else if time.Now().After(until) {
			m.bad("children %v are left", kids)
			break
		}
		time.Sleep(time.Millisecond)
	}
	if m.Want > 0 && m.mode == "os/exec" { // the last stranger of the image before is reaped
		for until := time.Now().Add(patience / 4); StrangersLeft(); time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				m.bad("strangers are left")
				break
			}
		}
	}
	must(reaper.Close())
	must(json.NewEncoder(os.Stdout).Encode(m.replacedState))
	os.Exit(0)
}

// runReplaced runs the program of the tests of exec, and returns what it says at its end. If during
// is not nil, it is called with its PID again and again.
func runReplaced(t *testing.T, execs int, during func(pid int), env ...string) replacedState {
	t.Helper()
	c := run(t, "replaced", Command{Env: append(env, fmt.Sprintf("EXECS=%d", execs))})
	return c.replacedState(execs, during)
}

func (c *child) replacedState(execs int, during func(pid int)) (s replacedState) {
	c.t.Helper()
	if during != nil {
		c.line()
	}
	over := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // ends with the program
		defer close(stopped)
		for during != nil {
			select {
			case <-over:
				return
			default:
				during(c.PID())
			}
		}
	}()
	said := []string{}
	for l := range c.lines { // the program has deadlines
		said = append(said, l)
	}
	c.wait()
	close(over)
	<-stopped
	if len(said) == 0 || json.Unmarshal([]byte(strings.Join(said, "")), &s) != nil {
		c.t.Fatalf("it says %q, and ended with %+v", said, c.Exit())
	}
	for _, b := range s.Bad {
		c.t.Error(b)
	}
	if s.Execs != execs || c.Exit().Code != 0 {
		c.t.Errorf("%d execs, want %d; ended with %+v", s.Execs, execs, c.Exit())
	}
	if len(s.Gaps) > 0 {
		slices.Sort(s.Gaps)
		c.t.Logf("the gap, from exec to the first line: p50 %v, p99 %v, most %v", s.Gaps[len(s.Gaps)/2], s.Gaps[len(s.Gaps)*99/100], s.Gaps[len(s.Gaps)-1])
	}
	return s
}

// TestExec: a program replaces itself again and again. Its children, which would be killed by the
// death of their parent, live on; a child that ends during the exec is reaped with its code; every
// line comes once; no descriptor and no zombie is left.
func TestExec(t *testing.T) {
	s := runReplaced(t, *execs, nil)
	for _, k := range s.Kids {
		if k.Next < 5*s.Execs {
			t.Errorf("%d lines", k.Next)
		}
	}
}

// TestExecBesides: the same while other code of the program starts processes by os/exec, which get
// no descriptors, and those that are left are reaped; while processes are started; and while a CPU
// profile runs, whose timer would end the next image.
func TestExecBesides(t *testing.T) {
	for _, mode := range []string{"os/exec", "starts", "profile"} {
		t.Run(mode, func(t *testing.T) {
			s := runReplaced(t, 6, nil, "MODE="+mode)
			if mode == "os/exec" && s.Strays == 0 {
				t.Error("no child was left")
			}
		})
	}
}

// TestExecSignals: signals that come all the time do not end the program, and come to it.
func TestExecSignals(t *testing.T) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	i, all := 0, []syscall.Signal{unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGINT}
	s := runReplaced(t, 50, func(pid int) {
		_ = unix.Kill(pid, all[i%len(all)])
		i++
		<-tick.C
	}, "MODE=signals")
	if s.Heard < s.Execs {
		t.Errorf("%d of %d images have got signals", s.Heard, s.Execs)
	}
}

// TestExecKeepsIgnored: what was ignored when the program was first started is ignored in each
// image at its start; what the image before has caught does not stop or end it.
func TestExecKeepsIgnored(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c, err := begin(t, Command{
		Path: "/bin/sh", Args: []string{"sh", "-c", `trap "" HUP CHLD; exec "$0"`, self},
		Env: []string{programVar + "=replaced", "EXECS=3", "MODE=ignored"},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	c.replacedState(3, nil)
}

// TestExecRefused: the exec of what is no program fails, with its reason; the image goes on with
// all that it has, and its signals, and replaces itself later.
func TestExecRefused(t *testing.T) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	foreign := slices.Clone(self[:4096])
	foreign[18], foreign[19] = 0xad, 0xde // e_machine (elf(5))
	dir := t.TempDir()
	put := func(name string, b []byte, mode os.FileMode) {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if name == "noexec" {
			if err := unix.Mount("none", filepath.Join(dir, name), "tmpfs", unix.MS_NOEXEC, ""); err != nil {
				t.Logf("no mount: %v", err)
				return
			}
			t.Cleanup(func() { _ = unix.Unmount(filepath.Join(dir, name), unix.MNT_DETACH) })
		}
		if err := os.WriteFile(filepath.Join(dir, name, "program"), b, mode); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"foreign: execve: exec format error", "gone: execve: no such file", "noexec: execve: permission denied", "plain: execve: permission denied", "text: execve: exec format error"}
	put("foreign", foreign, 0o755)
	put("gone", []byte("#!/nowhere/sh\n"), 0o755)
	put("plain", self, 0o644)
	put("text", []byte("hello\n"), 0o755)
	if os.Getuid() == 0 {
		put("noexec", self, 0o755)
	} else {
		want = slices.Delete(want, 2, 3)
	}
	// Go raises a soft limit at the start of a program, and syscall.Exec takes that back.
	c := run(t, "replaced", Command{Env: []string{"EXECS=1", "BAD=" + dir}, Rlimits: []Rlimit{{"nofile", 300, 400}}})
	s := c.replacedState(1, nil)
	if len(s.Tested) != len(want) {
		t.Fatalf("%q, want %q", s.Tested, want)
	}
	for i, w := range want {
		if !strings.HasPrefix(s.Tested[i], w) {
			t.Errorf("%q, want %q", s.Tested[i], w)
		}
	}
}

// TestExecAsInit: the same as process 1 of a PID namespace.
func TestExecAsInit(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		t.Skip("only root may make a PID namespace")
	}
	c, err := begin(t, Command{
		Path: "/usr/bin/unshare", Args: []string{"unshare", "--pid", "--fork", "--kill-child", "--mount-proc", self},
		Env: []string{programVar + "=replaced", "EXECS=5"},
	})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(c.end)
	c.replacedState(5, nil)
}

// TestExecOffMain: a tree that is started off the main goroutine after an exec starts processes,
// and refuses the next exec.
func TestExecOffMain(t *testing.T) {
	c := run(t, "replaced", Command{Env: []string{"EXECS=1", "MODE=off main"}})
	const why = "must be started by the main goroutine"
	if l := c.line(); !strings.Contains(l, why) {
		t.Error(l)
	}
	if l := c.line(); l != "0" {
		t.Error(l)
	}
	if l := c.line(); !strings.HasPrefix(l, "exec next: ") || !strings.Contains(l, why) {
		t.Error(l)
	}
}

// TestExecWaits: Exec waits for a fork of other code of the program, and for the writer of a CPU
// profile, until its context ends.
func TestExecWaits(t *testing.T) {
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte("text\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := OpenExecutable(path)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	s, err := Suspend(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Resume()
	next := func(says string) (err error) {
		for limit := 10 * time.Millisecond; limit < patience; limit *= 2 { // until it suffices to get there
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			err = s.Exec(ctx, Image{Executable: exe, Args: []string{"next"}, State: exe.file})
			cancel()
			if strings.Contains(err.Error(), says) {
				break
			}
		}
		return err
	}
	syscall.ForkLock.Lock()
	err = next("fork")
	syscall.ForkLock.Unlock()
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "fork") {
		t.Errorf("%v", err)
	}
	stuck := make(stuckWriter)
	if err := pprof.StartCPUProfile(stuck); err != nil {
		t.Skip(err)
	}
	err = next("profile")
	close(stuck)
	pprof.StopCPUProfile() // waits for the other call of it
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "profile") {
		t.Errorf("%v", err)
	}
	if err := next(unix.ENOEXEC.Error()); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("%v", err)
	}
	if err := s.Exec(t.Context(), Image{Executable: exe, Args: []string{"next"}}); !errors.Is(err, os.ErrInvalid) {
		t.Errorf("without a state: %v", err)
	}
}

// stuckWriter is a writer that waits until it is closed.
type stuckWriter chan struct{}

func (w stuckWriter) Write(b []byte) (int, error) { <-w; return len(b), nil }

// TestSuspendStarts: a Suspension waits for a start under way, at most until its context ends, and
// holds up those that come.
func TestSuspendStarts(t *testing.T) {
	free, busy := make(chan struct{}), make(chan struct{})
	go func() { // ends with free
		launcher() <- func() { close(busy); <-free }
	}()
	<-busy
	started := make(chan error)
	start := func() {
		p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}})
		if err == nil {
			<-p.Done()
			err = p.Close()
		}
		started <- err
	}
	go start()
	for starts.TryLock() { // until the start is under way
		starts.Unlock()
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Suspend(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	close(free)
	if err := <-started; err != nil {
		t.Error(err)
	}
	s, err := Suspend(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if starts.TryRLock() {
		t.Error("a start would go on")
	}
	go start()
	s.Resume()
	s.Resume()
	if err := <-started; err != nil {
		t.Error(err)
	}
}
