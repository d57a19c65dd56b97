package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
)

// Messages between processes. A member sends its join to the keeper of its room until the room
// itself welcomes it, wherever that is now.
type (
	join struct {
		Room, Name string
		Back       bool // it was in the room before
	}
	welcome struct{}
	say     struct{ Text string }
	who     struct{}
	line    struct{ Text string } // to each member
)

// Messages within one.
type (
	typed struct{ text string } // by the client
	again struct{}              // it is time to join again
)

func init() {
	actors.RegisterType[join]("chat.join")
	actors.RegisterType[welcome]("chat.welcome")
	actors.RegisterType[say]("chat.say")
	actors.RegisterType[who]("chat.who")
	actors.RegisterType[line]("chat.line")
}

// keeper has the rooms of a process, each an actor: one that fails takes no other with it.
type keeper struct {
	sys   *actors.System
	rooms map[string]*actor.PID
}

func (k *keeper) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case join:
		pid := k.rooms[m.Room]
		if pid == nil {
			var err error
			pid, err = k.sys.Spawn(actors.Context(ctx), "room-"+m.Room, func() actor.Actor { return &room{k.sys, map[string]person{}} })
			if err != nil {
				return // the one before has not quite ended: the member asks again
			}
			k.rooms[m.Room] = pid
			k.sys.MonitorFrom(ctx, pid)
		}
		ctx.Forward(pid)
	case *actors.Down: // a room has failed, or was empty
		maps.DeleteFunc(k.rooms, func(_ string, pid *actor.PID) bool { return pid.Equal(m.PID) })
	}
}

// room has its members, and no history. What it knows they have told it, and tell the next one.
type room struct {
	sys     *actors.System
	members map[string]person // by PID
}

type person struct {
	name string
	pid  *actor.PID
}

func (r *room) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case join:
		from := ctx.Sender()
		if _, in := r.members[from.String()]; !in {
			r.members[from.String()] = person{m.Name, from}
			r.sys.MonitorFrom(ctx, from)
			if !m.Back {
				r.tell(ctx, m.Name+" is here")
			}
		}
		ctx.Request(from, welcome{})
	case say:
		if p, in := r.members[ctx.Sender().String()]; in {
			r.tell(ctx, p.name+": "+m.Text)
		}
	case who:
		var names []string
		for _, p := range r.members {
			names = append(names, p.name)
		}
		slices.Sort(names)
		ctx.Send(ctx.Sender(), line{fmt.Sprintf("%d here: %s", len(names), strings.Join(names, ", "))})
	case *actors.Down: // a member left, or its process ended
		gone := r.members[m.PID.String()]
		delete(r.members, m.PID.String())
		r.tell(ctx, gone.name+" left")
		if len(r.members) == 0 {
			ctx.Stop(ctx.Self())
		}
	}
}

func (r *room) tell(ctx actor.Context, text string) {
	for _, p := range r.members {
		ctx.Send(p.pid, line{text})
	}
}

// member is a client, in the process that has its websocket.
type member struct {
	sys        *actors.System
	room, name string
	out        chan string // lines to the client
	slow       func()      // sends it away

	at     *actor.PID  // the room, nil = not in it now
	back   bool        // it was in it before
	unsaid []any       // for the room, when it is in it again
	retry  *time.Timer // of join
}

func (m *member) Receive(ctx actor.Context) {
	switch msg := ctx.Message().(type) {
	case *actor.Started:
		self := ctx.Self()
		m.retry = time.AfterFunc(0, func() { _ = m.sys.TrySend(context.Background(), self, again{}) }) // or it has left
	case *actor.Stopping:
		m.retry.Stop()
	case again:
		if m.at == nil {
			ctx.Request(home(m.sys, m.room), join{m.room, m.name, m.back})
			m.retry.Reset(100 * time.Millisecond)
		}
	case welcome:
		if m.at != nil {
			return // it had asked twice
		}
		m.at, m.back = ctx.Sender(), true
		m.sys.MonitorFrom(ctx, m.at)
		for _, what := range m.unsaid {
			ctx.Request(m.at, what)
		}
		m.unsaid = nil
	case *actors.Down: // the room has ended, or its process: look for the next one
		if m.at.Equal(msg.PID) {
			m.at = nil
			m.retry.Reset(0)
		}
	case typed:
		var what any = say{msg.text}
		if msg.text == "/who" {
			what = who{}
		}
		if m.at != nil {
			ctx.Request(m.at, what)
		} else if len(m.unsaid) < backlog {
			m.unsaid = append(m.unsaid, what)
		}
	case line:
		select {
		case m.out <- msg.Text:
		default:
			go m.slow() // ends with the websocket
		}
	}
}
