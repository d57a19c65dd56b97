package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// crowd is clients that order, each order again until a host says that it is sold.
type crowd struct {
	fleet
	stop    atomic.Bool
	running sync.WaitGroup

	mu       sync.Mutex
	accepted map[string]bool // orders
	printed  int             // of them, in the line before
	refused  int             // tries of which the client knows that they have done nothing
	doubt    int             // tries of which it does not
	longest  time.Duration   // that an order has taken, with all its tries
}

// harm ends, kills, cuts off and freezes the host that has the stock, under clients, and prints
// what they have counted. It ends the program with an error if an order that was accepted is lost,
// or one is sold twice.
func harm(f fleet) {
	c := &crowd{fleet: f, accepted: map[string]bool{}}
	began, at := time.Now(), ""
	for _, name := range seats {
		at = c.sells(name, "")
	}
	for i := range 4 {
		c.running.Go(func() { c.order(i) })
	}
	c.print("the start", "%s has the stock %.1f s later", at, time.Since(began).Seconds())

	at = c.try("the host with the stock is asked to end", f.ask, "the host is started again", f.restart, at)
	at = c.try("the host with the stock is killed", f.kill, "the host is started again", f.restart, at)
	if *network == bridged {
		at = c.try("the host with the stock is cut off", f.isolate, "the host is connected again", f.heal, at)
	} else {
		fmt.Println("the host with the stock is cut off: left out, as network namespaces are root's")
		fmt.Println("the host is connected again: left out")
	}
	c.try("the host with the stock is frozen", f.freeze, "the host is thawed", f.thaw, at)

	c.stop.Store(true)
	c.running.Wait()
	l, err := openLedger(filepath.Join(*dir, "ledger"), 0)
	must(err)
	defer l.close()
	lost := 0
	for order := range c.accepted {
		if l.sold[order] == 0 {
			lost++
		}
	}
	fmt.Printf("the ledger: of %d orders accepted %d are lost, %d sold twice; %d lines are void, of hosts that had the stock no more\n",
		len(c.accepted), lost, l.double, l.void)
	if lost+l.double > 0 {
		log.Fatal("a shop must not do that")
	}
}

// try does something to the host that has the stock, waits until the others have it from another
// one, undoes it, and waits until the host sells again. It returns who has the stock then.
func (c *crowd) try(harm string, do func(name string), mend string, undo func(name string), at string) (owner string) {
	began := time.Now()
	do(at)
	for _, name := range seats {
		if name != at {
			owner = c.sells(name, at)
		}
	}
	c.print(harm, "%s had it, %s has it %.1f s later", at, owner, time.Since(began).Seconds())
	began = time.Now()
	undo(at)
	owner = c.sells(at, "")
	c.print(mend, "%s sells %.1f s later, and %s has the stock", at, time.Since(began).Seconds(), owner)
	return owner
}

// sells waits until a host sells, by the stock of another one than former, and returns whose it is.
func (c *crowd) sells(name, former string) (owner string) {
	eventually("have host "+name+" sell", func() bool {
		owner = c.post(name, fmt.Sprint("probe", name, time.Now().UnixNano()))
		return owner != "" && owner != former
	})
	return owner
}

// order orders until the crowd stops, each time at the next host.
func (c *crowd) order(client int) {
	at := client
	for n := 0; !c.stop.Load(); n++ {
		time.Sleep(10 * time.Millisecond)
		began, id := time.Now(), fmt.Sprint("client", client, "n", n)
		eventually("have an order accepted", func() bool {
			at++
			return c.post(seats[at%len(seats)], id) != ""
		})
		c.mu.Lock()
		c.longest = max(c.longest, time.Since(began))
		c.mu.Unlock()
	}
}

// post tries an order at a host, and returns whose stock it has come from; "" if it was not
// accepted.
func (c *crowd) post(name, id string) (owner string) {
	resp, err := client.Post("http://"+address(name)+":8060/orders/"+id, "", nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
			c.refused++
		} else {
			c.doubt++
		}
		return ""
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err == nil && resp.StatusCode == http.StatusOK:
		c.accepted[id] = true
		_, owner, _ = strings.Cut(strings.TrimSpace(string(text)), "sold by host ")
	case resp.StatusCode == http.StatusServiceUnavailable:
		c.refused++
	default:
		c.doubt++
	}
	return owner
}

// client has a connection for each request, so that it knows whether it has reached a host.
var client = &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
	DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: time.Second}).DialContext,
}}

// print waits for 100 orders more, and prints what the clients have counted since the line before.
func (c *crowd) print(what, format string, args ...any) {
	c.mu.Lock()
	enough := len(c.accepted) + 100
	c.mu.Unlock()
	eventually("have orders accepted", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return len(c.accepted) >= enough
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Printf("%s: %s; %d orders accepted, the longest after %.1f s; tries: %d refused, %d in doubt\n",
		what, fmt.Sprintf(format, args...), len(c.accepted)-c.printed, c.longest.Seconds(), c.refused, c.doubt)
	c.printed, c.refused, c.doubt, c.longest = len(c.accepted), 0, 0, 0
}

// eventually polls until ok returns true, for a minute: the machine may be busy.
func eventually(what string, ok func() bool) {
	for began := time.Now(); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			log.Fatalf("it took too long to %s", what)
		}
	}
}
