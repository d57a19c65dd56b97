package runtimetest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// Children returns the process numbers of pid's children, zombies included.
func Children(t testing.TB, pid int) []int {
	t.Helper()
	var kids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		for f := range strings.FieldsSeq(string(b)) {
			kid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatalf("%s: %v", task, err)
			}
			kids = append(kids, kid)
		}
	}
	return kids
}

// Descriptors returns the descriptors that pid has open: their numbers, and what each is.
func Descriptors(t testing.TB, pid int) map[int]string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatalf("descriptors: %v", err)
	}
	fds := map[int]string{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue // it has been closed
		}
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatalf("descriptors: %v", err)
		}
		fds[n] = to
	}
	return fds
}

// Resident returns the memory in bytes that pid has in RAM and shares with no file on disk: its
// anonymous memory and its memory files. It is 0 when there is no such process.
func Resident(t testing.TB, pid int) (bytes int64) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) == 3 && (f[0] == "RssAnon:" || f[0] == "RssShmem:") { // proc_pid_status(5)
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			bytes += kb << 10
		}
	}
	return bytes
}

// Alive reports whether pid exists and is not a zombie.
func Alive(pid int) bool {
	s := state(fmt.Sprintf("/proc/%d/stat", pid))
	return s != 0 && s != 'Z' && s != 'X'
}

// Freeze sends SIGSTOP to pid and returns when every thread of it has stopped.
func Freeze(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatalf("stop %d: %v", pid, err)
	}
	Eventually(t, fmt.Sprintf("process %d stopped", pid), func() bool {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		return !slices.ContainsFunc(threads, func(stat string) bool { return state(stat) != 'T' })
	})
}

// state returns the state of a process or thread from its stat file; 0 when there is no such file.
func state(stat string) byte {
	b, err := os.ReadFile(stat)
	if err != nil {
		return 0
	}
	// pid (comm) state …, where comm may hold anything (proc_pid_stat(5)).
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	if len(rest) < 2 {
		return 0
	}
	return rest[1]
}

// GroupAlive reports whether the group has a process that is not a zombie. When a group has ended,
// its number may be used again.
func GroupAlive(t testing.TB, pgid int) bool {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(stats, func(stat string) bool {
		b, err := os.ReadFile(stat)
		if err != nil {
			return false // it has ended
		}
		f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:]) // state ppid pgrp …
		return len(f) > 2 && f[0][0] != 'Z' && f[0][0] != 'X' && string(f[2]) == strconv.Itoa(pgid)
	})
}
