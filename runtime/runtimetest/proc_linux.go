package runtimetest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
			continue // the thread ended meanwhile
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

// Descriptors returns what pid has open: descriptor number to what it is.
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
			continue // closed meanwhile
		}
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatalf("descriptors: %v", err)
		}
		fds[n] = to
	}
	return fds
}

// Alive tells whether pid is there and not a zombie.
func Alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// pid (comm) state …, where comm may hold anything (proc_pid_stat(5)).
	rest := b[bytes.LastIndexByte(b, ')')+1:]
	return len(rest) > 1 && rest[1] != 'Z' && rest[1] != 'X'
}
