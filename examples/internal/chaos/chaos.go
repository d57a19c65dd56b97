// Package chaos is what the examples that harm themselves have in common: clients that count what
// they get, and the harm. What goes wrong ends the program with an error, by [log.Fatal].
package chaos

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

const (
	patience = time.Minute // on a busy machine
	answers  = 10          // that each client must have before the counts are printed
)

// Run has harm run beside a tree that has started, and ends the tree after it.
func Run(rt *coppice.Runtime, harm func(rt *coppice.Runtime)) {
	go func() { // ends with the tree, which it ends
		harm(rt)
		_ = rt.Shutdown(context.Background()) // Main has the error
	}()
}

// Kill ends each of these processes in turn as kill -9 does, and waits for the next one of its name
// before it goes on.
func Kill(rt *coppice.Runtime, names ...string) {
	for _, name := range names {
		pid := PID(rt, name)
		Eventually("find "+name, func() bool { pid = PID(rt, name); return pid != 0 })
		if p, err := os.FindProcess(pid); err == nil {
			_ = p.Kill() // or it has just ended
		}
		Eventually("replace "+name, func() bool { now := PID(rt, name); return now != 0 && now != pid })
	}
}

// Workers returns the names of the processes of a pool.
func Workers(rt *coppice.Runtime, pool string) (names []string) {
	rt.Snapshot().Walk(func(t coppice.Tree) {
		if strings.HasPrefix(t.Name, pool+"/") {
			names = append(names, t.Name)
		}
	})
	return names
}

// PID returns the number of the process of a name if it runs; otherwise 0.
func PID(rt *coppice.Runtime, name string) (pid int) {
	rt.Snapshot().Walk(func(t coppice.Tree) {
		if t.Name == name && t.State == coppice.StateRunning {
			pid = t.PID
		}
	})
	return pid
}

// Reload reloads the tree.
func Reload(rt *coppice.Runtime) {
	if err := rt.Reload(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// Eventually polls until ok returns true.
func Eventually(what string, ok func() bool) {
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > patience {
			log.Fatalf("it took too long to %s", what)
		}
	}
}

// Get returns the text of a page, without the space around it; an error if its status is not 200.
func Get(ctx context.Context, c *http.Client, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, b)
	}
	return strings.TrimSpace(string(b)), err
}

// A Crowd is clients that ask again and again, and the counts of what they got. Its methods may be
// called concurrently.
type Crowd struct {
	kinds   []string // of counts, as they are printed
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu     sync.Mutex
	asking context.Context // what clients ask under
	giveUp context.CancelFunc
	counts map[string]int
	calls  int   // of After
	heard  []int // for each client: answers to what it asked since the last of them
}

// NewCrowd returns a crowd without clients, which prints its counts of these kinds, in that order.
func NewCrowd(kinds ...string) *Crowd {
	c := &Crowd{kinds: kinds, counts: map[string]int{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.asking, c.giveUp = context.WithCancel(c.ctx)
	return c
}

// Add adds a client, which calls ask until the crowd is stopped. The answer counts as of the kind
// that ask returns; an error, which is logged, as failed, or if ctx has ended as given up.
func (c *Crowd) Add(ask func(ctx context.Context) (kind string, err error)) {
	c.mu.Lock()
	i := len(c.heard)
	c.heard = append(c.heard, 0)
	c.mu.Unlock()
	c.running.Go(func() {
		for c.ctx.Err() == nil {
			c.mu.Lock()
			asked, ctx := c.calls, c.asking
			c.mu.Unlock()
			kind, err := ask(ctx)
			if c.ctx.Err() != nil {
				return
			}
			c.mu.Lock()
			switch {
			case err != nil && ctx.Err() != nil:
				kind = "given up"
			case err != nil:
				log.Print(err)
				kind = "failed"
			case asked == c.calls:
				c.heard[i]++
			}
			c.counts[kind]++
			c.mu.Unlock()
		}
	})
}

// Kill is [Kill] of one process, for clients that may wait for an answer which never comes: what
// they asked before the next process was there, they give up a second after that.
func (c *Crowd) Kill(rt *coppice.Runtime, name string) {
	Kill(rt, name)
	c.mu.Lock()
	defer c.mu.Unlock()
	time.AfterFunc(time.Second, c.giveUp)
	c.asking, c.giveUp = context.WithCancel(c.ctx)
}

// After waits until each client has ten answers to what it asked after this call, prints what they
// counted since the last one, and returns it. More of a kind than most says, or a kind that was not
// announced, ends the program.
func (c *Crowd) After(what string, most map[string]int) map[string]int {
	c.mu.Lock()
	c.calls++
	clear(c.heard)
	c.mu.Unlock()
	Eventually("have all clients answered after "+what, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.Min(c.heard) >= answers
	})
	c.mu.Lock()
	counts := c.counts
	c.counts = map[string]int{}
	c.mu.Unlock()
	var parts []string
	for _, kind := range c.kinds {
		parts = append(parts, fmt.Sprintf("%d %s", counts[kind], kind))
	}
	fmt.Printf("%s: %s\n", what, strings.Join(parts, ", "))
	for kind := range counts {
		if !slices.Contains(c.kinds, kind) {
			log.Fatalf("%d %s, want none", counts[kind], kind)
		}
	}
	for kind, n := range most {
		if counts[kind] > n {
			log.Fatalf("%d %s, want at most %d", counts[kind], kind, n)
		}
	}
	return counts
}

// Stop ends the clients, and waits for them.
func (c *Crowd) Stop() {
	c.stop()
	c.running.Wait()
}
