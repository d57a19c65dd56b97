// Chat is a chat over websockets. Processes of one pool have the clients, those of another have the
// rooms, each an actor: whichever process dies or is replaced, the clients of the others stay, and
// a room is whole again at once.
//
//	go -C examples/chat run . -addr 127.0.0.1:8070
//	go -C examples/chat run . -chaos
package main

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"net/http"
	"os"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coder/websocket"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const (
	homes   = 2   // processes that have rooms
	backlog = 256 // lines that wait for a client; one that is slower is sent away
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8070", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "processes that have clients")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a process may take to end")
	clients := flag.Int("clients", 500, "with -chaos: how many")
	broken := flag.Bool("chaos", false, "have clients chat, kill and reload under them, count at them what it cost, and end")
	flag.Parse()

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := "ws://" + rt.Listeners()[0].Addr.String() + "/"
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, url, *clients) })
			}
		}},
		Children: []coppice.ChildSpec{
			coppice.Pool{Name: "rooms", Size: homes, Worker: keepRooms},
			coppice.Pool{Name: "chat", Size: *workers, Shutdown: *shutdown, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "ws", Network: "tcp", Address: *addr, Policy: coppice.LeastLoaded})
				if err != nil {
					return err
				}
				mux := http.NewServeMux()
				mux.Handle("GET /{room}", &front{w: w, stop: ctx})
				return w.Serve(ctx, ln, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second})
			}},
		},
	})
}

// keepRooms is the worker function of a process that has rooms.
func keepRooms(ctx context.Context, w *coppice.Worker) error {
	if _, err := w.System().Spawn(ctx, "keeper", func() actor.Actor { return &keeper{w.System(), map[string]*actor.PID{}} }); err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done() // then another process has the name, and the members join there
	return nil
}

// home returns the keeper of a room: the one of a name, whichever process has it now.
func home(sys *actors.System, room string) *actor.PID {
	h := fnv.New32a()
	_, _ = h.Write([]byte(room)) // it has no errors
	return sys.Lookup(fmt.Sprintf("rooms/%d/keeper", h.Sum32()%homes))
}

// front has the websockets of a process.
type front struct {
	w    *coppice.Worker
	stop context.Context // ends when the process is asked to stop
	last atomic.Int64    // number of a client
}

// names of rooms; an actor's name has no others
var names = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

func (f *front) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if !names.MatchString(r.PathValue("room")) {
		http.Error(rw, "a room has a name of up to 32 of a to z, 0 to 9 and -", http.StatusNotFound)
		return
	}
	c, err := websocket.Accept(rw, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.CloseNow()
	goodbye := context.AfterFunc(f.stop, func() { // closing wakes the Read below
		_ = c.Close(websocket.StatusGoingAway, "this worker ends: connect again")
	})
	defer goodbye()
	// Not the request's context, which ends when the connection is taken over.
	ctx, leave := context.WithCancel(f.w.WorkContext())
	defer leave()
	sys := f.w.System()
	m := &member{sys: sys, room: r.PathValue("room"), name: r.FormValue("name"), out: make(chan string, backlog)}
	m.slow = func() { _ = c.Close(websocket.StatusPolicyViolation, "too slow") }
	m.out <- fmt.Sprintf("%s of generation %d", f.w.Name(), f.w.Generation())
	pid, err := sys.Spawn(ctx, fmt.Sprint("client-", f.last.Add(1)), func() actor.Actor { return m })
	if err != nil {
		return
	}
	defer sys.Stop(context.WithoutCancel(ctx), pid) // the room sees it
	go func() {                                     // ends with ctx
		for {
			select {
			case line := <-m.out:
				if c.Write(ctx, websocket.MessageText, []byte(line)) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		_, text, err := c.Read(ctx)
		if err != nil || sys.Send(ctx, pid, typed{string(text)}) != nil {
			return
		}
	}
}
