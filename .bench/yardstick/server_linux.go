package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/bench/yardstick/peers"
)

// server is what a row loads: a process with all its descendants, or several processes.
type server struct {
	addr netip.AddrPort
	cmds []*exec.Cmd
}

// startTree starts this program as the tree that serves, and waits until it does.
func startTree(args ...string) (*server, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return startProgram(regexp.MustCompile(`^serving on (\S+)$`), exec.Command(exe, append(args, "-serve", "-addr", "127.0.0.1:0")...))
}

// startC starts the server in C.
func startC(policy string, workers int) (*server, error) {
	bin, err := buildC("accept")
	if err != nil {
		return nil, err
	}
	return startProgram(regexp.MustCompile(`^(\d+)$`), exec.Command(bin, policy, strconv.Itoa(workers)))
}

// startNode starts the server in Node.
func startNode(workers int) (*server, error) {
	cmd, remove, err := nodeProgram(peers.AcceptNode, workers)
	if err != nil {
		return nil, err
	}
	defer remove()
	return startProgram(regexp.MustCompile(`^(\d+)$`), cmd)
}

// nodeProgram is a program in Node, until remove is called.
func nodeProgram(source []byte, workers int) (cmd *exec.Cmd, remove func(), err error) {
	node, err := exec.LookPath("node")
	if err != nil {
		return nil, nil, fmt.Errorf("%w: no node", errSkip)
	}
	dir, err := os.MkdirTemp("", "yardstick")
	if err != nil {
		return nil, nil, err
	}
	script := filepath.Join(dir, "program.js")
	return exec.Command(node, script, strconv.Itoa(workers)), func() { _ = os.RemoveAll(dir) }, os.WriteFile(script, source, 0o600)
}

// startProgram starts cmd and reads from its first line where it serves.
func startProgram(says *regexp.Regexp, cmd *exec.Cmd) (*server, error) {
	s := &server{}
	lines, err := s.startPiped(cmd)
	if err != nil {
		return nil, err
	}
	if !lines.Scan() && lines.Err() != nil {
		return nil, lines.Err()
	}
	line := lines.Text()
	m := says.FindStringSubmatch(line)
	if m == nil {
		s.stop()
		return nil, fmt.Errorf("the server says %q", line)
	}
	addr := m[1]
	if !strings.Contains(addr, ":") {
		addr = "127.0.0.1:" + addr
	}
	s.addr, err = netip.ParseAddrPort(addr)
	return s, err
}

// startPlain starts plain Go servers on one listener.
func startPlain(what string, workers int) (*server, error) {
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	s := &server{addr: ln.Addr().(*net.TCPAddr).AddrPort()}
	for i := range workers {
		cmd := exec.Command(exe)
		cmd.Stderr = os.Stderr
		cmd.ExtraFiles = []*os.File{f}
		cmd.Env = append(os.Environ(), peerVar+"="+what, peerID+"="+strconv.Itoa(i))
		if err := s.start(cmd); err != nil {
			s.stop()
			return nil, err
		}
	}
	return s, nil
}

// start starts one process of s; it dies with this one.
func (s *server) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmds = append(s.cmds, cmd)
	return nil
}

// startPiped starts one process as start does, and returns what it prints.
func (s *server) startPiped(cmd *exec.Cmd) (*bufio.Scanner, error) {
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return bufio.NewScanner(out), s.start(cmd)
}

// stop ends s: a tree in order, the others at once.
func (s *server) stop() {
	for _, cmd := range s.cmds {
		_ = cmd.Process.Signal(syscall.SIGTERM)
	}
	for _, cmd := range s.cmds {
		_ = cmd.Wait()
	}
}

// cpu is the processor time that all processes of s have used so far, user and system. None may
// have ended since it was last asked.
func (s *server) cpu() (sum time.Duration) {
	for _, cmd := range s.cmds {
		for _, pid := range family(cmd.Process.Pid) {
			sum += processCPU(pid)
		}
	}
	return sum
}

// family returns pid and its descendants.
func family(pid int) []int {
	all := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // the thread may have ended
		for f := range strings.FieldsSeq(string(b)) {
			if kid, err := strconv.Atoi(f); err == nil {
				all = append(all, family(kid)...)
			}
		}
	}
	return all
}

// processCPU reads the processor time clock of another process (clock_getcpuclockid(3)): in
// nanoseconds, where /proc/pid/stat has ticks.
func processCPU(pid int) time.Duration {
	const schedule = 2
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|schedule), &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
