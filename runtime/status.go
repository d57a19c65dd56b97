package coppice

import (
	"fmt"
	"strings"
	"time"

	"github.com/coppice-go/coppice/actors"
)

// Tree is the whole tree at one moment, or one branch of it. The reader owns this copy, and may
// print it, encode it as JSON, or walk it.
type Tree struct {
	Name        string     `json:"name"` // registered name of a process, else the last part of the path
	Role        Role       `json:"role"`
	State       State      `json:"state"`
	ID          int        `json:"id,omitempty"`  // of a process or goroutine of the tree
	PID         int        `json:"pid,omitempty"` // of an OS process
	Incarnation int        `json:"incarnation,omitempty"`
	Generation  int        `json:"generation,omitempty"`
	Since       *time.Time `json:"since,omitempty"` // when its present state began; a worker that replaces another runs since then

	// Of a child with children: their restart strategy, the restart budget, and the part of it that
	// is used now: restarts within the period that ends now.
	Strategy string `json:"strategy,omitempty"`
	Budget   int    `json:"budget,omitempty"`
	Used     int    `json:"used,omitempty"`

	// Of a pool whose new generation is judged: both in numbers.
	Canary string `json:"canary,omitempty"`

	// Of a pool with an Autoscale: its bounds, what it does now and why, and its last change.
	Autoscale string `json:"autoscale,omitempty"`

	LastExit string `json:"last_exit,omitempty"` // why the previous incarnation ended
	Leaked   int    `json:"leaked,omitempty"`    // goroutines that were asked to end and run on

	// Of a worker: how often a broken link to the listener process was replaced, and how many
	// requests it had served, of those that Worker.Serve and Worker.CountRequests count, when it
	// last answered its heartbeat.
	Relinked int    `json:"relinked,omitempty"`
	Requests uint64 `json:"requests,omitempty"`

	// Of a worker that is another program: what it says that it does, by STATUS=, RELOADING=1 and
	// STOPPING=1.
	Status string `json:"status,omitempty"`

	// Of a process with Environment.Resources: what its cgroup uses.
	Resources *ResourceUsage `json:"resources,omitempty"`

	// Of an actor: its mailbox, and how often it has failed.
	Actor *actors.ActorInfo `json:"actor,omitempty"`

	// Of a listener: its socket. Of a pool: the sockets that its workers asked for.
	Listeners []ListenerInfo `json:"listeners,omitempty"`

	// Of a pool and a Process: the walls of its Environment.Sandbox, and what its workers may
	// listen on, in one line.
	Sandbox string `json:"sandbox,omitempty"`

	// Of the master. Cursor is that of the newest event that the tree certainly shows; a reader of
	// [Runtime.Events] goes on from it.
	Cursor    uint64 `json:"cursor,omitempty"`
	LostLines uint64 `json:"lost_lines,omitempty"` // lines that Config.Output has not taken in time
	Reaped    uint64 `json:"reaped,omitempty"`     // orphans reaped, of which it was not the parent; see Config.Subreaper

	Children []Tree `json:"children,omitempty"` // in start order
}

// Role is what a child is in the tree.
type Role string

// The roles. The last three are of workers without a slot: one that waits for a slot, one that is
// being started for a slot, one that has had a slot.
const (
	RoleMaster     Role = "master"
	RoleSupervisor Role = "supervisor"
	RolePool       Role = "pool"
	RoleWorker     Role = "worker"
	RoleListener   Role = "listener" // the listener process, and a ListenerSpec
	RoleFunc       Role = "func"
	RoleActor      Role = "actor"
	RoleProcess    Role = "process"
	RoleSpare      Role = "spare"
	RoleCandidate  Role = "candidate"
	RoleDraining   Role = "draining"
)

// State is where a child is in its life.
type State string

// The states.
const (
	StateDown       State = "down"
	StateStarting   State = "starting"
	StateRunning    State = "running"
	StateStopping   State = "stopping"
	StateRestarting State = "restarting" // it waits for its next start
)

// Walk calls f for t and everything below it, parents first.
func (t Tree) Walk(f func(Tree)) {
	f(t)
	for _, c := range t.Children {
		c.Walk(f)
	}
}

// walk is Walk with the path of each child below the root, whose path is path.
func (t Tree) walk(path string, f func(path string, t Tree)) {
	f(path, t)
	for _, c := range t.Children {
		name := c.Name[strings.LastIndexByte(c.Name, '/')+1:]
		at := strings.TrimPrefix(path+"/"+name, "/")
		c.walk(at, f)
	}
}

// String draws the tree, a line for each child.
func (t Tree) String() string {
	var b strings.Builder
	t.draw(&b, "", "")
	return b.String()
}

func (t Tree) draw(b *strings.Builder, first, rest string) {
	const column = 28 // where the text after the name begins
	label := first + t.Name
	fmt.Fprintf(b, "%s%s %s", label, strings.Repeat(" ", max(1, column-len([]rune(label)))), t.Role)
	if t.PID != 0 {
		fmt.Fprintf(b, " pid %d", t.PID)
	}
	switch {
	case t.Strategy == "":
	case t.Budget == 0:
		fmt.Fprintf(b, " %s, no restarts allowed", t.Strategy)
	default:
		fmt.Fprintf(b, " %s, %d of %d restarts left", t.Strategy, t.Budget-t.Used, t.Budget)
	}
	for _, says := range []string{t.Canary, t.Autoscale} {
		if says != "" {
			b.WriteString(", " + says)
		}
	}
	for i, l := range t.Listeners {
		if i > 0 || t.Strategy != "" {
			b.WriteByte(',')
		}
		fmt.Fprintf(b, " %s %s", l.Addr, l.Policy)
		switch {
		case l.Refuses:
			b.WriteString(" (paused, clients are refused)")
		case l.Paused:
			b.WriteString(" (paused)")
		}
	}
	if t.Sandbox != "" {
		fmt.Fprintf(b, ", sandbox: %s", t.Sandbox)
	}
	if t.State != StateRunning {
		fmt.Fprintf(b, " (%s)", t.State)
	}
	if t.Incarnation > 1 {
		fmt.Fprintf(b, " incarnation %d", t.Incarnation)
	}
	if t.Actor != nil {
		fmt.Fprintf(b, " %s", *t.Actor)
	}
	if t.Status != "" {
		fmt.Fprintf(b, " %q", t.Status)
	}
	if t.Resources != nil {
		fmt.Fprintf(b, " (%s)", t.Resources)
	}
	b.WriteByte('\n')
	for i, c := range t.Children {
		if i == len(t.Children)-1 {
			c.draw(b, rest+"└─ ", rest+"   ")
		} else {
			c.draw(b, rest+"├─ ", rest+"│  ")
		}
	}
}
