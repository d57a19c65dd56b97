package main

import (
	"context"
	"fmt"
	"log"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const perRoom = 10 // clients

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
	chaos.Kill(rt, "rooms/0")
	if told, cut := c.after("kill -9 of rooms/0"); told+cut > 0 {
		log.Fatal("the death of a process with rooms cost clients their connections")
	}
	theirs := c.of("chat/0 ")
	chaos.Kill(rt, "chat/0")
	chaos.Eventually("see the connections end", func() bool { return c.cut.Load() >= theirs })
	if told, cut := c.after("kill -9 of chat/0"); told > 0 || cut != theirs {
		log.Fatalf("%d clients are cut, want the %d that it had", cut, theirs)
	}
	chaos.Reload(rt)
	chaos.Eventually("have all clients with the new processes", func() bool { return c.of("chat/0 of generation 2")+c.of("chat/1 of generation 2") == int64(n) })
	if told, cut := c.after("a reload"); told < int64(n) || cut > 0 {
		log.Fatalf("of %d clients %d are told to go, and %d cut", n, told, cut)
	}
}

// after waits until each room has all its members, and each client has heard each of its room,
// and prints what the clients counted since the last time.
func (c *crowd) after(what string) (told, cut int64) {
	rooms, lines := slices.Collect(slices.Chunk(c.all, perRoom)), 0
	for _, one := range c.all {
		one.forget()
	}
	chaos.Eventually("have all members in their rooms", func() bool {
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
	chaos.Eventually("hear all members", func() bool {
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
