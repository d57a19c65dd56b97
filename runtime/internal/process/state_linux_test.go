package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSuspendProcess: a process that ends while its Process is suspended is reaped by what waits
// for it next: the same Process, or one that was made of its state.
func TestSuspendProcess(t *testing.T) {
	for _, restored := range []bool{false, true} {
		t.Run(fmt.Sprintf("restored %t", restored), func(t *testing.T) {
			p, err := Start(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "kill -STOP $$; exit 7"}})
			if err != nil {
				t.Fatal(err)
			}
			s, f := p.Suspend()
			if want := (ChildState{PID: p.PID()}); s != want {
				t.Errorf("%+v, want %+v", s, want)
			}
			for ended := false; !ended; _, ended = reap(p.fd, unix.WNOWAIT) { // SIGCONT before SIGSTOP does nothing
				if err := p.Signal(unix.SIGCONT); err != nil {
					t.Fatal(err)
				}
			}
			next := p
			if restored {
				if next, err = Restore(s, f); err != nil {
					t.Fatal(err)
				}
				if err := next.Signal(unix.SIGTERM); err != nil { // nothing to end any more
					t.Error(err)
				}
			}
			select {
			case <-next.Done():
				t.Error("it is reaped while suspended")
			default:
			}
			next.Resume()
			<-next.Done()
			if e := next.Exit(); e.Code != 7 || e.Lost != nil {
				t.Errorf("%+v", e)
			}
			s, f = next.Suspend()
			again, err := Restore(s, f)
			if err != nil {
				t.Fatal(err)
			}
			<-again.Done()
			again.Resume()
			if again.Exit() != next.Exit() || !s.Ended || s.Code != 7 || again.GroupAlive() {
				t.Errorf("restored as %+v, was %+v", again.Exit(), next.Exit())
			}
			if err := again.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRestoreRefused: a state that does not fit its descriptor is refused, and the descriptor stays
// the caller's. A process that other code has reaped is lost.
func TestRestoreRefused(t *testing.T) {
	p, err := Start(Command{Path: "/bin/sleep", Args: []string{"sleep", "60"}})
	if err != nil {
		t.Fatal(err)
	}
	s, pidfd := p.Suspend()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	shut, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	shut.Close()
	for _, tt := range []struct {
		s    ChildState
		f    *os.File
		want string
	}{
		{ChildState{}, pidfd, "has PID 0"},
		{ChildState{PID: -s.PID}, pidfd, "has PID -"},
		{ChildState{PID: s.PID + 1}, pidfd, fmt.Sprintf("has PID %d, its descriptor is the pidfd of %d", s.PID+1, s.PID)},
		{s, null, "its descriptor is the pidfd of 0"},
		{s, shut, "closed"},
		{s, nil, "invalid argument"},
	} {
		if _, err := Restore(tt.s, tt.f); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.s, err, tt.want)
		}
	}
	if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Wait4(s.PID, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	q, err := Restore(s, pidfd)
	if err != nil {
		t.Fatal(err)
	}
	q.Resume()
	<-q.Done()
	if !errors.Is(q.Exit().Lost, unix.ECHILD) {
		t.Errorf("%+v", q.Exit())
	}
	if s, _ := q.Suspend(); s.Lost != "waitid: no child processes" {
		t.Errorf("%+v", s)
	}
	if err := q.Close(); err != nil {
		t.Error(err)
	}
}

// TestRestoreExecutable: what was held open is held open, with the directory; wrong descriptors are
// refused.
func TestRestoreExecutable(t *testing.T) {
	e, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	alone, files := e.Suspend()
	if again, err := RestoreExecutable(alone, files); err != nil || !reflect.DeepEqual(again, e) {
		t.Errorf("%+v, %v", again, err)
	}
	if err := e.StartIn(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	s, files := e.Suspend()
	if again, err := RestoreExecutable(s, files); err != nil || !reflect.DeepEqual(again, e) {
		t.Errorf("%+v, %v", again, err)
	}
	for _, bad := range [][]*os.File{nil, files[:1], {files[1], files[0]}, {files[0], nil}, {files[0], files[1], files[0]}} {
		if _, err := RestoreExecutable(s, bad); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
	if _, err := RestoreExecutable(alone, files); err == nil {
		t.Error("two files are taken for one")
	}
}

// TestStates: what the states look like. A change is a new format, see package handover; a zero
// must mean what was before the field existed.
func TestStates(t *testing.T) {
	got, err := json.MarshalIndent([]any{
		ChildState{1, true, 2, 3, true, 4, 5, 6, "lost"}, LinesState{true, []byte("rest")}, ExecutableState{true, "dir"},
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "states.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(append(got, '\n'), want) {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// TestSuspendLines: an output that is suspended again and again, and restored, comes as if it was
// not: each line once, whole, or in the same pieces.
func TestSuspendLines(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		most := readSize/2 + rnd.IntN(2*readSize)
		var text []byte
		for len(text) < 150<<10 {
			n := rnd.IntN(40)
			if rnd.IntN(20) == 0 {
				n = rnd.IntN(4 * readSize)
			}
			text = append(append(text, bytes.Repeat([]byte("é"), n)...), '\n')
		}
		if rnd.IntN(2) == 0 {
			text = text[:len(text)-1] // the last line has no end
		}
		read := func(suspends bool) (got []string) {
			r, w, err := OutputPipe()
			if err != nil {
				t.Fatal(err)
			}
			some := make(chan struct{}, 1) // have come
			write := func(line []byte, more bool) {
				got = append(got, fmt.Sprint(more, " ", string(line)))
				select {
				case some <- struct{}{}:
				default:
				}
			}
			l := ReadLines(r, most, write)
			go func() { // ends when all is written
				defer w.Close()
				for b := text; len(b) > 0; {
					n := min(len(b), 1+rnd.IntN(9000))
					if _, err := w.Write(b[:n]); err != nil {
						panic(err)
					}
					b = b[n:]
				}
			}()
			for i := 0; suspends; i++ {
				s, f, err := l.Suspend(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if s.Ended {
					break
				}
				if i%4 == 0 { // the old Lines stays suspended, as at an exec
					if l, err = RestoreLines(s, f, most, write); err != nil {
						t.Fatal(err)
					}
				}
				l.Resume()
				select {
				case <-some:
				case <-l.done:
				}
			}
			<-l.done
			return got
		}
		if want, got := read(false), read(true); !slices.Equal(got, want) {
			t.Fatalf("seed %d: %d lines and pieces, want %d", seed, len(got), len(want))
		}
	}
}

// TestSuspendLinesBounds: Suspend waits for a write until its context ends, and then the output
// goes on; when Finish was called, for the end.
func TestSuspendLinesBounds(t *testing.T) {
	r, w, err := OutputPipe()
	if err != nil {
		t.Fatal(err)
	}
	lines, writes := make(chan string), make(chan struct{}, 9)
	l := ReadLines(r, readSize, func(line []byte, _ bool) {
		writes <- struct{}{}
		lines <- string(line)
	})
	fmt.Fprint(w, "a\nb\nc")
	<-writes
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, _, err := l.Suspend(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	suspended := make(chan LinesState)
	go func() {
		s, _, _ := l.Suspend(t.Context())
		suspended <- s
	}()
	for l.halt.now.Load() == nil { // the first line waits in write
		time.Sleep(time.Microsecond)
	}
	if got := <-lines; got != "a" {
		t.Errorf("%q", got)
	}
	if s := <-suspended; string(s.Rest) != "b\nc" || s.Ended {
		t.Errorf("%q, %t", s.Rest, s.Ended)
	}
	l.Resume()
	if got := <-lines; got != "b" {
		t.Errorf("%q", got)
	}
	go Finish(l) // ends with l
	for !l.ending.Load() {
		time.Sleep(time.Microsecond)
	}
	w.Close()
	go func() {
		s, _, _ := l.Suspend(t.Context())
		suspended <- s
	}()
	if got := <-lines; got != "c" {
		t.Errorf("%q", got)
	}
	s := <-suspended
	if !s.Ended {
		t.Errorf("%+v", s)
	}
	none, err := RestoreLines(s, nil, readSize, nil)
	if err != nil {
		t.Fatal(err)
	}
	none.Resume()
	Finish(none)
	if _, err := RestoreLines(LinesState{}, nil, readSize, nil); err == nil {
		t.Error("an output without a pipe is taken")
	}
	if _, err := RestoreLines(s, r, readSize, nil); err == nil {
		t.Error("an output that has ended is taken with a pipe")
	}
}

// TestFinishSuspended: an output that was suspended when Finish was called ends after Resume,
// although a descendant has the pipe.
func TestFinishSuspended(t *testing.T) {
	r, w, err := OutputPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l := ReadLines(r, readSize, func([]byte, bool) {})
	if _, _, err := l.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	go Finish(l) // ends with l
	for !l.ending.Load() {
		time.Sleep(time.Microsecond)
	}
	l.Resume()
	<-l.done
}

// TestSuspendRaces: a process that ends at the time of Suspend is reaped once, whatever comes
// first.
func TestSuspendRaces(t *testing.T) {
	for i := range 50 {
		p, err := Start(Command{Path: "/bin/true", Args: []string{"true"}})
		if err != nil {
			t.Fatal(err)
		}
		for range i % 5 {
			p.Suspend()
			p.Resume()
		}
		s, f := p.Suspend()
		q, err := Restore(s, f)
		if err != nil {
			t.Fatal(err)
		}
		q.Resume()
		<-q.Done()
		if e := q.Exit(); e.Lost != nil || e.Code != 0 || e.Signal != syscall.Signal(0) {
			t.Fatalf("%+v", e)
		}
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
