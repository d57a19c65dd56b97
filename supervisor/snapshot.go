package supervisor

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// Status is the state of a child or a supervisor.
type Status uint8

const (
	// Down: the spec is kept and nothing runs. OTP shows undefined.
	Down Status = iota
	// Starting: a start by request, or the first one, is going on.
	Starting
	// Running: up.
	Running
	// Stopping: asked to stop or killed, not ended yet; or a supervisor that ends by itself.
	Stopping
	// Restarting: failed, and to be started again: the attempt is going on,
	// or waits for its delay, or for siblings that must stop first.
	Restarting
)

// String returns the status in lower case.
func (s Status) String() string {
	return name(s, "down", "starting", "running", "stopping", "restarting")
}

// Node is one place of the tree in a snapshot. It is the reader's own copy.
type Node struct {
	Path        string
	ID          string
	Type        ChildType
	Restart     Restart
	Significant bool
	Status      Status
	Incarnation uint64    // of the instance that runs, or ran last; 0: none did
	Since       time.Time // when Status became what it is
	Failures    int       // consecutive failures
	NextAttempt time.Time // Restarting with a delay: when it ends
	LastExit    *Reason   // how the last instance ended; nil: none has
	Leaked      int       // abandoned goroutines that still run
	Info        any       // what the instance's Info method returned

	// For a supervisor, and only while it runs:
	Strategy Strategy
	Max      int // the restart budget
	Used     int // how much of it was used within the window that ends now
	Counts   Counts
	Children []Node // in start order
}

// Counts is OTP's count_children.
type Counts struct {
	Specs       int // child specs; Dynamic: 1, the template
	Active      int // children that run
	Supervisors int // specs of type supervisor, running or not; Dynamic: children
	Workers     int
}

// Find returns the node at path, seen from n: "" is n, "a/b" is child b of child a.
func (n *Node) Find(path string) *Node {
	if path == "" {
		return n
	}
	id, rest, _ := strings.Cut(path, "/")
	for i := range n.Children {
		if c := &n.Children[i]; c.ID == id {
			return c.Find(rest)
		}
	}
	return nil
}

// Format prints the tree, one line a node. The verb is not looked at.
func (n Node) Format(f fmt.State, _ rune) { n.print(f, "", "") }

func (n *Node) print(w io.Writer, first, rest string) {
	fmt.Fprintf(w, "%s%s", first, n.ID)
	if n.Incarnation > 0 {
		fmt.Fprintf(w, "#%d", n.Incarnation)
	}
	fmt.Fprintf(w, " %v", n.Status)
	if n.Type == TypeSupervisor && n.Max+len(n.Children)+n.Counts.Specs > 0 {
		fmt.Fprintf(w, ", %v, %d of %d restarts left", n.Strategy, n.Max-n.Used, n.Max)
	}
	if rest != "" || first != "" {
		fmt.Fprintf(w, ", %v", n.Restart)
	}
	if n.Significant {
		fmt.Fprint(w, ", significant")
	}
	if n.LastExit != nil && n.Status != Running {
		fmt.Fprintf(w, ", last exit %v", *n.LastExit)
	}
	if n.Leaked > 0 {
		fmt.Fprintf(w, ", %d leaked", n.Leaked)
	}
	if n.Info != nil {
		fmt.Fprintf(w, ", %v", n.Info)
	}
	fmt.Fprintln(w)
	for i := range n.Children {
		if i == len(n.Children)-1 {
			n.Children[i].print(w, rest+"└── ", rest+"    ")
		} else {
			n.Children[i].print(w, rest+"├── ", rest+"│   ")
		}
	}
}

// view is a published snapshot: immutable.
type view struct {
	node     Node         // without Children, and Used
	window   rules.Window // as of the last restart
	period   time.Duration
	children persistentMap[childView]
}

// childView is one child's part of a view: immutable.
type childView struct {
	node Node
	spec ChildSpec
	inst Instance // nil if nothing runs
}

func (v *view) tree(now rules.Time) Node {
	n := v.node
	n.Used = min(v.window.Used(now, v.period), n.Max)
	if v.children.len() == 0 {
		return n
	}
	n.Children = make([]Node, 0, v.children.len())
	for c := range v.children.all() {
		n.Children = append(n.Children, c.tree())
	}
	return n
}

func (c *childView) tree() Node {
	n := c.node
	if c.inst != nil {
		below := c.inst.Snapshot()
		n.Strategy, n.Max, n.Used, n.Counts = below.Strategy, below.Max, below.Used, below.Counts
		n.Leaked += below.Leaked
		n.Children = below.Children
		if n.Status == Running && below.Status == Stopping {
			n.Status = Stopping // it ends by itself
		}
	}
	return n
}

// status returns the status of a child for its phase.
func status(s *rules.State, c *rules.Child) Status {
	switch c.Phase {
	case rules.Starting:
		if c.Automatic {
			return Restarting
		}
		return Starting
	case rules.Running:
		return Running
	case rules.Stopping:
		return Stopping
	case rules.Waiting:
		return Restarting
	default:
		if s.Work == rules.Group && s.Trigger == c.Key {
			return Restarting
		}
		return Down
	}
}
