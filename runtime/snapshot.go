package coppice

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// Tree is the whole tree at one moment, or one branch of it: a reader's own
// copy, to print, to encode as JSON, or to walk.
type Tree struct {
	Name        string     `json:"name"` // registered name of a process, else the last part of the path
	Role        string     `json:"role"` // master, supervisor, pool, worker, listener, func, actor, process; spare, candidate, draining without a slot
	State       string     `json:"state"`
	ID          int        `json:"id,omitempty"`  // of a process or goroutine of the tree
	PID         int        `json:"pid,omitempty"` // of an OS process
	Incarnation int        `json:"incarnation,omitempty"`
	Generation  int        `json:"generation,omitempty"`
	Since       *time.Time `json:"since,omitempty"` // when it came into its state

	// Of what has children: how they are restarted, the restart budget, and how
	// much of it is used.
	Strategy string `json:"strategy,omitempty"`
	Budget   int    `json:"budget,omitempty"`
	Used     int    `json:"used,omitempty"`

	LastExit string `json:"last_exit,omitempty"` // why the incarnation before ended
	Leaked   int    `json:"leaked,omitempty"`    // goroutines that were told to end and run on

	// Of a worker: how often it got another link to the listener process, for the one before was broken.
	Relinked int `json:"relinked,omitempty"`

	// Of an actor: its mailbox, and how often it has failed.
	Actor *actors.ActorInfo `json:"actor,omitempty"`

	// Of a listener its socket, and of a pool the sockets that its workers asked for.
	Listeners []ListenerInfo `json:"listeners,omitempty"`

	// Of the master.
	LostLines uint64 `json:"lost_lines,omitempty"` // of output: Config.Output has not taken them in time
	Reaped    uint64 `json:"reaped,omitempty"`     // orphans that it was not the parent of; see Config.Subreaper

	Children []Tree `json:"children,omitempty"` // in start order
}

// Walk calls f for t and everything below it, parents first.
func (t Tree) Walk(f func(Tree)) {
	f(t)
	for _, c := range t.Children {
		c.Walk(f)
	}
}

// String draws the tree, a line for each child.
func (t Tree) String() string {
	var b strings.Builder
	t.draw(&b, "", "")
	return b.String()
}

func (t Tree) draw(b *strings.Builder, first, rest string) {
	const column = 28 // where what follows the name begins
	label := first + t.Name
	fmt.Fprintf(b, "%s%s %s", label, strings.Repeat(" ", max(1, column-len([]rune(label)))), t.Role)
	if t.PID != 0 {
		fmt.Fprintf(b, " pid %d", t.PID)
	}
	if t.Strategy != "" {
		fmt.Fprintf(b, " %s, %d of %d restarts left", t.Strategy, t.Budget-t.Used, t.Budget)
	}
	if t.Role == "listener" {
		for _, l := range t.Listeners {
			fmt.Fprintf(b, " %s %s", l.Addr, l.Policy)
			if l.Paused {
				b.WriteString(" (paused)")
			}
		}
	}
	if t.State != supervisor.Running.String() {
		fmt.Fprintf(b, " (%s)", t.State)
	}
	if t.Incarnation > 1 {
		fmt.Fprintf(b, " incarnation %d", t.Incarnation)
	}
	if t.Actor != nil {
		fmt.Fprintf(b, " %s", *t.Actor)
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

// Roles of workers that have no slot: they wait for one, are being started for one, or
// have had one.
const (
	roleSpare     = "spare"
	roleCandidate = "candidate"
	roleDraining  = "draining"
)

// info is what a child of the tree shows of itself in a snapshot.
type info struct {
	role        string
	name        string
	id, pid     int
	generation  int
	incarnation int
	relinked    int
}

// LogValue is how a child shows in the log.
func (i info) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("name", i.name), slog.String("role", i.role)}
	if i.id != 0 {
		attrs = append(attrs, slog.Int("id", i.id))
	}
	if i.pid != 0 {
		attrs = append(attrs, slog.Int("pid", i.pid))
	}
	return slog.GroupValue(attrs...)
}

// String is one line.
func (i info) String() string {
	s := i.role
	if i.id != 0 {
		s += fmt.Sprintf(" #%d", i.id)
	}
	if i.pid != 0 {
		s += fmt.Sprintf(" pid %d", i.pid)
	}
	return s
}

// Snapshot returns the whole tree as it is now. It never waits: what is being
// started or stopped shows as that.
func (rt *Runtime) Snapshot() Tree {
	t := rt.branch(rt.tree.Snapshot(), "", rt.Listeners())
	t.Name, t.Role, t.PID, t.LostLines = childproto.MasterName, childproto.MasterName, os.Getpid(), rt.output.Lost()
	if rt.reaper != nil {
		t.Reaped = rt.reaper.Reaped()
	}
	return t
}

// roleOf returns the role of what a spec starts, as a Tree has it.
func roleOf(spec ChildSpec) string {
	if _, ok := spec.(ListenerSpec); ok {
		return "listener"
	}
	return strings.ToLower(fmt.Sprintf("%T", spec)[len("coppice."):])
}

// branch turns a supervisor's node into a Tree. path is the node's in the specs.
func (rt *Runtime) branch(n supervisor.Node, path string, listeners []ListenerInfo) Tree {
	t := Tree{
		Name: n.ID, Role: "supervisor", State: n.Status.String(), Incarnation: int(n.Incarnation), Leaked: n.Leaked,
	}
	if !n.Since.IsZero() {
		t.Since = &n.Since
	}
	if n.LastExit != nil {
		t.LastExit = n.LastExit.String()
	}
	if v, ok := n.Info.(actors.ActorView); ok {
		i := v.Now()
		t.Actor = &i
	}
	if i, ok := n.Info.(info); ok {
		t.Role, t.Name, t.ID, t.PID, t.Generation, t.Relinked = i.role, i.name, i.id, i.pid, i.generation, i.relinked
		if i.incarnation != 0 { // the pool's count: the supervisor does not see who comes between
			t.Incarnation = i.incarnation
		}
	} else if found := rt.root.find(path); found != nil {
		t.Role = roleOf(found.spec)
	}
	for _, l := range listeners {
		if slices.Contains(l.owners, path) && (t.Role == "listener" || len(l.owners) == 1) {
			t.Listeners = append(t.Listeners, l)
		}
	}
	if n.Type == supervisor.TypeSupervisor || path == "" {
		t.Strategy, t.Budget, t.Used = n.Strategy.String(), n.Max, n.Used
	}
	for _, c := range n.Children {
		at := c.ID
		if path != "" {
			at = path + "/" + c.ID
		}
		t.Children = append(t.Children, rt.branch(c, at, listeners))
	}
	return t
}
