package output

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/queue"
)

const flush = time.Second

// gate is a writer that blocks at each line until the test lets it go on.
type gate struct {
	let   chan struct{} // nil = at once; closed = from now on at once
	fails bool

	mu   sync.Mutex
	took []string
}

// taken returns the lines taken so far.
func (g *gate) taken() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.took
}

func (g *gate) WriteLine(l Line) error {
	if g.let != nil {
		<-g.let
	}
	if g.fails {
		return errors.New("no")
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.took = append(g.took, fmt.Sprintf("%s#%d| %s", l.Name, l.ID, l.Text))
	return nil
}

// fill puts lines, all from one goroutine, until the queue refuses one. It returns how many the
// queue kept and how long the last Put waited.
func fill(q *queue.Queue[Line], text string) (kept int, waited time.Duration) {
	for {
		began := time.Now()
		if !q.Put(Line{Name: "w", Text: text}) {
			return kept, time.Since(began)
		}
		kept++
	}
}

// TestOutputStuck: a writer that takes nothing costs lines, not the master: the queue is bounded,
// Put waits one second once, lost lines are counted, and when the writer goes on their number
// stands in their place.
func TestOutputStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &gate{let: make(chan struct{})}
		q := NewQueue("master", 8<<10, w.WriteLine)
		text := strings.Repeat("x", 1000)
		kept, waited := fill(q, text)
		if want := maxQueued / (lineCost + len(text)); kept != want || waited != patience {
			t.Errorf("kept %d lines, want %d; waited %v", kept, want, waited)
		}
		began := time.Now()
		for range 9 {
			if q.Put(Line{Text: text}) {
				t.Error("a line was kept")
			}
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("with a stuck writer the next lines waited %v", d)
		}
		if got := q.Lost(); got != 10 {
			t.Errorf("lost %d, want 10", got)
		}
		close(w.let)
		synctest.Wait()
		if !q.Put(Line{Name: "w", ID: 3, Text: "again"}) {
			t.Error("a line was lost although the writer goes on")
		}
		if lost := q.Close(flush); lost != 10 {
			t.Errorf("lost %d, want 10", lost)
		}
		took := w.taken()
		if n := len(took); n != kept+2 || took[n-2] != "master#0| coppice: 10 lines of output lost: they were not taken in time" || took[n-1] != "w#3| again" {
			t.Errorf("%d lines taken, the last %q", n, took[max(0, n-2):])
		}
	})
}

// TestOutputSlow: a slow writer slows down the process that prints, and loses nothing.
func TestOutputSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &gate{let: make(chan struct{})}
		q := NewQueue("master", 8<<10, w.WriteLine)
		go func() {
			for range 3000 {
				time.Sleep(patience / 2)
				w.let <- struct{}{}
			}
		}()
		text := strings.Repeat("x", 1000)
		for i := range 3000 {
			if !q.Put(Line{Text: text}) {
				t.Fatalf("line %d was lost", i)
			}
		}
		for len(w.taken()) < 3000 {
			time.Sleep(time.Second)
		}
		if lost := q.Close(flush); lost != 0 {
			t.Errorf("lost %d", lost)
		}
	})
}

// TestOutputEnd: the end waits for the last lines, but not for ever; lines that fail to be written
// are counted.
func TestOutputEnd(t *testing.T) {
	for _, tt := range []struct {
		name string
		w    *gate
		took int
		lost uint64
		wait time.Duration
	}{
		{"all is taken", &gate{}, 5, 0, 0},
		{"nothing is taken", &gate{let: make(chan struct{})}, 0, 5, flush},
		{"every write fails", &gate{fails: true}, 0, 5, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if tt.w.let != nil {
					tt.w.let = make(chan struct{}) // of this bubble
				}
				q := NewQueue("master", 8<<10, tt.w.WriteLine)
				for i := range 5 {
					q.Put(Line{Name: "w", Text: fmt.Sprint(i)})
				}
				began := time.Now()
				if lost := q.Close(flush); lost != tt.lost || time.Since(began) != tt.wait {
					t.Errorf("lost %d after %v; want %d after %v", lost, time.Since(began), tt.lost, tt.wait)
				}
				if took := tt.w.taken(); len(took) != tt.took {
					t.Errorf("taken %q", took)
				}
				if q.Put(Line{}) {
					t.Error("a line was kept after the end")
				}
				if tt.w.let != nil {
					close(tt.w.let)
				}
			})
		})
	}
}

// TestTail: the newest lines are kept, bounded in number and in bytes; the lines before last words
// outlive the dump that follows, however long it is.
func TestTail(t *testing.T) {
	var few, big, dump Tail
	for i := range 250 {
		few.Add(Line{Text: fmt.Sprint(i)}, false)
		big.Add(Line{Text: strings.Repeat("x", 8<<10)}, false)
		stream := Stderr
		if i == 8 {
			stream = Stdout
		}
		dump.Add(Line{Stream: stream, Text: fmt.Sprint(i)}, i == 3 || i == 5)
	}
	few.Lose()
	lines, more := few.Last()
	if len(lines) != lastLines || more != 150 || few.Lost() != 1 || lines[0].Text != "150" || lines[99].Text != "249" {
		t.Errorf("%d lines from %q, %d before, %d lost", len(lines), lines[0].Text, more, few.Lost())
	}
	if lines, more := big.Last(); len(lines) != lastBytes/(8<<10) || more != 242 {
		t.Errorf("%d big lines, %d before", len(lines), more)
	}
	var texts []string
	lines, more = dump.BesidesWords()
	for _, l := range lines {
		texts = append(texts, l.Text)
	}
	if got := strings.Join(texts, " "); got != "0 1 2 3 4 8" || more != 0 {
		t.Errorf("besides the dump: %s, %d before", got, more)
	}
}

// TestDumps: last words and what follows them on standard error are one line, which comes when the
// process ends, when it is too long, or when the process lives on.
func TestDumps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got []string
		d := Dumps{Put: func(l Line) {
			got = append(got, fmt.Sprintf("%v %s", l.Dump, l.Text[:min(len(l.Text), 40)]))
		}}
		say := func(stream, text string, begins bool) {
			if !d.Take(Line{Stream: stream, Text: text}, begins) {
				got = append(got, text)
			}
		}
		say(Stderr, "before", false)
		say(Stderr, "panic: a", true)
		say(Stdout, "other", false)
		say(Stderr, "", false)
		say(Stderr, "goroutine 1", false)
		d.Flush()
		say(Stderr, "panic: b", true)
		say(Stderr, "fatal error: c", true)
		time.Sleep(2 * dumpTime)
		synctest.Wait()
		say(Stderr, "after", false)
		say(Stderr, "panic: d", true)
		say(Stderr, strings.Repeat("x", maxDump), false)
		d.Flush()
		want := "before|other|true panic: a\n\ngoroutine 1|true panic: b\nfatal error: c|after|true panic: d|" + strings.Repeat("x", maxDump)
		if s := strings.Join(got, "|"); s != want {
			t.Errorf("%.300q", s)
		}
	})
	var none Dumps
	if none.Take(Line{Stream: Stderr}, true) {
		t.Error("a line was gathered for no one")
	}
	none.Flush()
}
