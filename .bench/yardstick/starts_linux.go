package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// startRows are the starts of programs, the first starts of trees, and what is private to an idle
// process.
func startRows() []row {
	return []row{
		{"start_runtime", toMain("runtime")},
		{"start_otlp", toMain("otlp")},
		{"peer_start_actor", toMain("actor")},
		{"start_self", toMain("")},
		{"start_tree_1", firstStart(1)},
		{"start_tree_8", firstStart(8)},
		{"memory_worker", private("runtime")},
		{"peer_memory_http", private("actor")},
	}
}

// buildStart compiles a program of starts, once, until removeBuilt; "" is this one.
func buildStart(name string) (string, error) {
	if name == "" {
		return os.Executable()
	}
	built.Lock()
	defer built.Unlock()
	if p := built.path[name]; p != "" {
		return p, nil
	}
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, name)
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/coppice-go/coppice/bench/yardstick/starts/"+name).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: go build: %v\n%s", errSkip, err, out)
	}
	built.path[name] = bin
	return bin, nil
}

// toMain starts a program that ends at the begin of its main: p50_us is from the exec to its end.
func toMain(name string) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		bin, err := buildStart(name)
		if err != nil {
			return r, err
		}
		var took []time.Duration
		var cpu time.Duration
		for began := time.Now(); len(took) == 0 || time.Since(began) < d; {
			cmd := exec.Command(bin)
			cmd.Env = append(os.Environ(), peerVar+"=none")
			at := time.Now()
			if err := cmd.Run(); err != nil {
				return r, err
			}
			took = append(took, time.Since(at))
			cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		return replacements(took, cpu), nil
	}
}

// firstStart starts a tree until all its workers are ready, again and again.
func firstStart(workers int) func(time.Duration) (result, error) {
	return func(d time.Duration) (r result, err error) {
		var took []time.Duration
		var cpu time.Duration
		for began := time.Now(); len(took) == 0 || time.Since(began) < d; {
			at := time.Now()
			s, _, err := startUp("runtime", workers)
			if err != nil {
				return r, err
			}
			took = append(took, time.Since(at))
			cpu += s.cpu()
			s.stop()
		}
		return replacements(took, cpu), nil
	}
}

// startUp starts a program of starts, and waits until it is up; pid is that of a worker.
func startUp(name string, workers int) (s *server, pid int, err error) {
	bin, err := buildStart(name)
	if err != nil {
		return nil, 0, err
	}
	s = &server{}
	lines, err := s.startPiped(exec.Command(bin, strconv.Itoa(workers)))
	if err != nil {
		return nil, 0, err
	}
	lines.Scan()
	if _, err = fmt.Sscanf(lines.Text(), "up %d", &pid); err != nil {
		s.stop()
		return nil, 0, fmt.Errorf("%q: %w", lines.Text(), err)
	}
	return s, pid, nil
}

// private is the memory that an idle process has written, and has for itself.
func private(name string) func(time.Duration) (result, error) {
	return func(time.Duration) (r result, err error) {
		s, pid, err := startUp(name, 1)
		if err != nil {
			return r, err
		}
		defer s.stop()
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return r, fmt.Errorf("%w: %v", errSkip, err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if f[0] == "Private_Dirty:" { // the clean pages are the program's, which its processes share
				r.Value, _ = strconv.ParseFloat(f[1], 64)
			}
		}
		r.Unit, r.CPU = "KiB", float64(s.cpu().Nanoseconds())
		return r, nil
	}
}
