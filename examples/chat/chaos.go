package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	coppice "github.com/coppice-go/coppice/runtime"
)

const perRoom = 10 // clients

// patience is how long a room may take to be whole again, on a busy machine.
const patience = time.Minute

// crowd is clients that stay in the chat, and what they saw.
type crowd struct {
	all []*client

	told    atomic.Int64 // ends by a close frame that says so
	cut     atomic.Int64 // other ends
	refused atomic.Int64 // connections that there were not
}

// client is one of them; it connects again when its connection ends.
type client struct {
	url, name string

	mu      sync.Mutex
	conn    *websocket.Conn // nil = none now
	welcome string          // what the process that has it said
	lines   map[string]bool // that it has heard in this connection
	said    string          // in it, last
	at      time.Time       // when
}

// harm has n clients chat, kills a process with rooms and one with clients, and reloads the tree.
// It prints what the clients counted, and ends the program with an error if that is more than it
// may cost.
func harm(rt *coppice.Runtime, url string, n int) {
	ctx, leave := context.WithCancel(context.Background())
	c := &crowd{}
	var running sync.WaitGroup
	for i := range n {
		name := fmt.Sprintf("guest-%d", i)
		one := &client{url: fmt.Sprintf("%sroom-%d?name=%s", url, i/perRoom, name), name: name, lines: map[string]bool{}}
		c.all = append(c.all, one)
		running.Go(func() { c.stay(ctx, one) })
	}
	defer running.Wait()
	defer leave()

	c.after("the start")
	kill(rt, "rooms/0")
	if told, cut := c.after("kill -9 of rooms/0"); told+cut > 0 {
		log.Fatal("the death of a process with rooms cost clients their connections")
	}
	theirs := c.of("chat/0 ")
	kill(rt, "chat/0")
	eventually("see the connections end", func() bool { return c.cut.Load() >= theirs })
	if told, cut := c.after("kill -9 of chat/0"); told > 0 || cut != theirs {
		log.Fatalf("%d clients are cut, want the %d that it had", cut, theirs)
	}
	if err := rt.Reload(ctx); err != nil {
		log.Fatal(err)
	}
	eventually("have all clients with the new processes", func() bool { return c.of("chat/0 of generation 2")+c.of("chat/1 of generation 2") == int64(n) })
	if told, cut := c.after("a reload"); told < int64(n) || cut > 0 {
		log.Fatalf("of %d clients %d are told to go, and %d cut", n, told, cut)
	}
}

// kill ends a process as kill -9 does, and waits for the next one of its name.
func kill(rt *coppice.Runtime, name string) {
	killed := 0
	eventually("replace "+name, func() (replaced bool) {
		rt.Snapshot().Walk(func(t coppice.Tree) {
			if t.Name != name || t.State != coppice.StateRunning {
				return
			}
			if replaced = killed != 0 && t.PID != killed; killed == 0 {
				killed = t.PID
				if p, err := os.FindProcess(t.PID); err == nil {
					_ = p.Kill() // or it has just ended
				}
			}
		})
		return replaced
	})
}

// eventually polls until ok returns true.
func eventually(what string, ok func() bool) {
	for began := time.Now(); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > patience {
			log.Fatalf("it took too long to %s", what)
		}
	}
}

// after waits until each room has all its members, and each client has heard each of its room,
// and prints what the clients counted since the last time.
func (c *crowd) after(what string) (told, cut int64) {
	rooms, lines := slices.Collect(slices.Chunk(c.all, perRoom)), 0
	for _, one := range c.all {
		one.forget()
	}
	eventually("have all members in their rooms", func() bool {
		whole := true
		for _, room := range rooms {
			for _, one := range room {
				if !one.heard(fmt.Sprintf("%d here: ", len(room))) {
					whole = false
					one.send("/who")
				}
			}
		}
		return whole
	})
	eventually("hear all members", func() bool {
		lines = 0
		for _, room := range rooms {
			for _, speaker := range room {
				before := lines
				for _, one := range room {
					if one.heard(speaker.name + ": after " + what) {
						lines++
					}
				}
				if lines-before < len(room) {
					speaker.send("after " + what)
				}
			}
		}
		return lines == len(c.all)*perRoom
	})
	told, cut = c.told.Swap(0), c.cut.Swap(0)
	fmt.Printf("%s: %d clients told to connect again, %d cut, %d refused; then %d rooms whole, and %d lines heard\n",
		what, told, cut, c.refused.Load(), len(rooms), lines)
	if c.refused.Load() > 0 {
		log.Fatal("clients are refused")
	}
	return told, cut
}

// of returns how many clients have been welcomed so.
func (c *crowd) of(welcome string) (n int64) {
	for _, one := range c.all {
		one.mu.Lock()
		if strings.HasPrefix(one.welcome, welcome) {
			n++
		}
		one.mu.Unlock()
	}
	return n
}

// stay keeps a client connected until ctx ends.
func (c *crowd) stay(ctx context.Context, one *client) {
	for ctx.Err() == nil {
		conn, _, err := websocket.Dial(ctx, one.url, nil)
		if err != nil {
			if ctx.Err() == nil {
				c.refused.Add(1)
			}
			return
		}
		err = one.listen(ctx, conn)
		switch {
		case ctx.Err() != nil: // it leaves
		case websocket.CloseStatus(err) == websocket.StatusGoingAway:
			c.told.Add(1)
		default:
			c.cut.Add(1)
			log.Printf("%s: %v", one.name, err)
		}
	}
}

// listen reads until the connection ends.
func (o *client) listen(ctx context.Context, conn *websocket.Conn) error {
	defer conn.CloseNow()
	for first := true; ; first = false {
		_, text, err := conn.Read(ctx)
		o.mu.Lock()
		switch line := string(text); {
		case err != nil:
			o.conn, o.welcome = nil, ""
		case first:
			o.conn, o.welcome, o.lines, o.said = conn, line, map[string]bool{}, ""
		default:
			if at := strings.Index(line, " here: "); at > 0 {
				line = line[:at+len(" here: ")] // without the names
			}
			o.lines[line] = true
		}
		o.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (o *client) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	clear(o.lines)
	o.said = ""
}

func (o *client) heard(line string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.lines[line]
}

// send says something, unless the client has just done so, or is not connected now.
func (o *client) send(text string) {
	o.mu.Lock()
	conn := o.conn
	if o.said == text && time.Since(o.at) < time.Second {
		conn = nil
	}
	if conn != nil {
		o.said, o.at = text, time.Now()
	}
	o.mu.Unlock()
	if conn != nil {
		_ = conn.Write(context.Background(), websocket.MessageText, []byte(text)) // an error is a connection that has ended
	}
}
