package process

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/seccomptest"
)

// programs are what the test binary is when it is started by a test: by the name
// in programVar.
var programs = map[string]func(){
	"wait": func() { time.Sleep(time.Hour) }, // to block for ever is a deadlock
	// leaves leaves a child behind in its group, which ends at SIGTERM or not, prints
	// its number, and ends.
	"leaves": func() {
		var pidfd int
		pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
			Env:   []string{programVar + "=" + os.Getenv("LEAVES")},
			Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{PidFD: &pidfd},
		})
		if err != nil {
			panic(err)
		}
		fmt.Println(pid)
	},
	"deaf": func() {
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf")
		time.Sleep(time.Hour)
	},
	// refused is a program with system calls refused by a seccomp filter. It starts a
	// process, prints whether that has a descriptor that is not its own, and signals it.
	"refused": func() {
		e, err := strconv.Atoi(os.Getenv("REFUSE"))
		must(err)
		_, err = unix.Open(os.DevNull, unix.O_RDONLY, 0) // not close-on-exec
		must(err)
		seccomptest.Refuse(syscall.Errno(e), seccomptest.Call{Number: unix.SYS_CLOSE_RANGE},
			seccomptest.Call{Number: unix.SYS_PIDFD_OPEN}, seccomptest.Call{Number: unix.SYS_PIDFD_SEND_SIGNAL})
		p, err := Start(Command{Path: "/bin/sleep", Args: []string{"sleep", "3600"}})
		must(err)
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
		must(err)
		inherited := 0 // the program's loader opens files for moments
		for _, e := range entries {
			if name, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.PID(), e.Name())); name == os.DevNull {
				inherited++
			}
		}
		fmt.Println(inherited)
		must(p.Signal(syscall.SIGTERM))
		<-p.Done()
		fmt.Println(p.Exit().Signal == syscall.SIGTERM)
	},
	// refusal is a program with one system call refused. It says what it has of a start,
	// and of its children.
	"refusal": func() {
		e, err := strconv.Atoi(os.Getenv("REFUSE"))
		must(err)
		null, err := os.Open(os.DevNull)
		must(err)
		cmd := Command{Path: "/bin/true", Args: []string{"/bin/true"}, DeathSignal: syscall.SIGKILL, Files: []*os.File{null}}
		spareThreads()
		call := map[string]seccomptest.Call{
			"clone":    {Number: unix.SYS_CLONE, Bits: unix.CLONE_VFORK}, // of a process, not of a thread
			"pidfd":    {Number: unix.SYS_CLONE, Bits: unix.CLONE_PIDFD},
			"execve":   {Number: unix.SYS_EXECVE},
			"dup3":     {Number: unix.SYS_DUP3},
			"waitid":   {Number: unix.SYS_WAITID},
			"setpgid":  {Number: unix.SYS_SETPGID},
			"prctl":    {Number: unix.SYS_PRCTL},
			"prlimit":  {Number: unix.SYS_PRLIMIT64},
			"priority": {Number: unix.SYS_SETPRIORITY},
		}[os.Getenv("CALL")]
		if call.Number == unix.SYS_PRLIMIT64 || call.Number == unix.SYS_SETPRIORITY {
			cmd.Rlimits, cmd.Nice = []Rlimit{{"nofile", 128, 256}}, 5
		}
		seccomptest.Refuse(syscall.Errno(e), call)
		_, err = Start(cmd)
		fmt.Println(err)
		_, err = unix.Wait4(-1, nil, unix.WNOHANG, nil)
		fmt.Println(err)
	},
	// reaper is a program without pidfd_open that reaps an orphan.
	"reaper": func() {
		e, err := strconv.Atoi(os.Getenv("REFUSE"))
		must(err)
		seccomptest.Refuse(syscall.Errno(e), seccomptest.Call{Number: unix.SYS_PIDFD_OPEN})
		r, err := StartReaper(slog.New(slog.DiscardHandler), true, time.Millisecond)
		must(err)
		p, err := Start(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "( true & )"}})
		must(err)
		<-p.Done()
		for r.Reaped() == 0 { // the test has a deadline
			time.Sleep(time.Millisecond)
		}
		fmt.Println("reaped")
	},
	// few starts itself with as many descriptors, from few on, as the errors say, until that
	// does.
	"few": func() {
		null, err := os.Open(os.DevNull)
		must(err)
		n, err := strconv.Atoi(os.Getenv("FILES"))
		must(err)
		files := make([]*os.File, n)
		files[0], files[n-1] = null, null
		exe, err := Self()
		must(err)
		for few := uint64(8); few < 100; few++ {
			must(unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: few, Max: 1000}, nil))
			p, err := Start(Command{Executable: exe, Args: []string{"few"}, Env: []string{programVar + "=nothing"}, Files: files})
			if err == nil {
				<-p.Done()
				if p.Exit().Code != 0 {
					err = fmt.Errorf("%+v", p.Exit())
				}
			}
			if err == nil {
				fmt.Println("started")
				return
			}
			fmt.Println(err)
		}
	},
	"nothing": func() {},
	// raises starts a program of another user with a higher limit of descriptors than its own.
	"raises": func() {
		must(unix.Prlimit(0, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 500, Max: 600}, nil))
		null, err := os.Open(os.DevNull)
		must(err)
		p, err := Start(Command{
			Path: "/bin/sh", Args: []string{"sh", "-c", "ulimit -Sn; ulimit -Hn; id -u"}, Files: []*os.File{null, os.Stdout},
			Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Rlimits: []Rlimit{{"nofile", 700, 800}},
		})
		must(err)
		<-p.Done()
	},
	// unreadable starts the program at RUN, which it may run and not read, as a user
	// without rights.
	"unreadable": func() {
		if os.Getuid() == 0 {
			must(syscall.Setgroups(nil))
			must(syscall.Setgid(65534))
			must(syscall.Setuid(65534))
		}
		_, err := os.ReadFile(os.Getenv("RUN"))
		fmt.Println(errors.Is(err, os.ErrPermission))
		exe, err := OpenExecutable(os.Getenv("RUN"))
		must(err)
		p, err := Start(Command{Executable: exe, Args: []string{"sh", "-c", "exit 7"}})
		must(err)
		<-p.Done()
		fmt.Println(p.Exit().Code)
	},
	"starts": func() { // prints the error of a start by this program, at a limit
		spareThreads()
		setLimit(os.Getenv("LIMIT"))
		_, err := Start(Command{Path: "/bin/true", Args: []string{"/bin/true"}})
		fmt.Println(err)
		for _, e := range []syscall.Errno{syscall.EAGAIN, syscall.EMFILE} {
			if strings.Contains(fmt.Sprint(err), e.Error()) {
				fmt.Println(e == errno(err))
			}
		}
	},
}

const programVar = "COPPICE_PROCESS_TEST"

func TestMain(m *testing.M) {
	if name := os.Getenv(programVar); name != "" {
		programs[name]()
		return
	}
	os.Exit(m.Run())
}

const patience = 60 * time.Second

// child is a process of a test and what it printed.
type child struct {
	*Process
	t     *testing.T
	lines chan string // closed at the end of its output
	out   *Lines
}

// begin starts cmd with its output read. Files 0 to 2 are filled in.
func begin(t *testing.T, cmd Command) (*child, error) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	r, w, err := OutputPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	files := append([]*os.File{null, w, w}, cmd.Files...)
	cmd.Files = files
	p, err := Start(cmd)
	if err != nil {
		r.Close()
		return nil, err
	}
	c := &child{Process: p, t: t, lines: make(chan string, 1024)}
	c.out = ReadLines(r, readSize, func(line []byte, _ bool) { c.lines <- string(line) })
	go func() { // ends with the output
		<-c.out.done
		close(c.lines)
	}()
	return c, nil
}

// run starts one of the programs, or fails the test.
func run(t *testing.T, program string, cmd Command) *child {
	t.Helper()
	exe, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd.Executable, cmd.Args = exe, []string{program}
	cmd.Env = append(cmd.Env, programVar+"="+program)
	c, err := begin(t, cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	return c
}

// line returns the next line that the process prints.
func (c *child) line() string {
	c.t.Helper()
	select {
	case l, ok := <-c.lines:
		if !ok {
			c.t.Fatal("no further line")
		}
		return l
	case <-time.After(patience):
		c.t.Fatal("no line in time")
	}
	return ""
}

// wait waits for the process's end.
func (c *child) wait() Exit {
	c.t.Helper()
	select {
	case <-c.Done():
	case <-time.After(patience):
		c.t.Fatal("it does not end")
	}
	return c.Exit()
}

// end kills the process, if it lives, and the rest of its group.
func (c *child) end() {
	if err := c.SignalGroup(syscall.SIGKILL); err != nil {
		c.t.Error(err)
	}
	c.wait()
	Finish(c.out)
	if err := c.Close(); err != nil {
		c.t.Error(err)
	}
}
