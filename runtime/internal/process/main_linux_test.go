package process

import (
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// programs are what the test binary is when it is started by a test: by the name
// in programVar.
var programs = map[string]func(){
	"wait": func() { time.Sleep(time.Hour) }, // to block for ever is a deadlock
	// leaves leaves a child behind in its group, which heeds SIGTERM or not, prints
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
	"starts": func() { // what it says of its own start of another, at a limit
		spareThreads()
		limit(os.Getenv("LIMIT"))
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
	c.out = ReadLines(r, func(line []byte) { c.lines <- string(line) })
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

// end kills whatever is left of the process and its group.
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
