package childproto

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/canary"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// Version is the version of these frames. The master does not start a child of another version.
const Version = 1

// FilesVar names the descriptors that a process was given, joined by colons: for a worker as one
// of fdipc's variables, for other programs behind COPPICE_. Only a child has it.
const FilesVar = "FILES"

// StartedVar has the state in which the master was started, for started.Restore in a worker.
const StartedVar = "STARTED"

// Exit codes of the master, and of every child of the tree.
const (
	ExitOK     = 0
	ExitFailed = 1  // the tree gave up, or could not start
	ExitUsage  = 2  // a spec, a flag or an environment that cannot be used
	ExitCut    = 69 // of a child: its channel to the master has ended (EX_UNAVAILABLE of sysexits.h)
)

// IdleShare is the part of a drain for which a worker that is not replaced keeps connections
// without a request: their clients would find no worker to ask again.
const IdleShare = 20

// The registered names of the tree's own processes.
const (
	MasterName    = "master"
	ListenersName = "listeners" // the supervisor of the listener process
	ListenerName  = "listener"
	GatewayName   = "gateway" // the pool of the gateway to other hosts
	MemberName    = "member"  // the pool of this host's part of the engine of a cluster
)

// MasterID is the ID of the master.
const MasterID = 0

// Address returns the actor address of the child with an ID: the ID, or in a cluster boot.ID.
func Address(boot string, id int) string {
	if boot == "" {
		return strconv.Itoa(id)
	}
	return boot + "." + strconv.Itoa(id)
}

// The frames of process life, on every channel between the master and a child.
// They are few and rare, so their payloads are JSON. docs/protocol.md shows their order.
const (
	FrameHello         fdipc.Kind = 0x10 + iota // master: what the child is; the first frame of all
	FrameReady                                  // child: it does its work
	FrameStop                                   // master: the child is to drain and end
	FrameExitNotice                             // child: it ends, and why; the last frame of all
	FrameLink                                   // master: a channel to a sibling, as the one handle
	FrameWorkerGone                             // master, to the listener process: a worker is reaped
	FrameStopAccepting                          // master: accept no more; listener process: every handle is claimed
	FrameHeartbeat                              // master: a question; child, with the same number: it is well, or what is wrong
	FrameSpareReady                             // child, a spare: it waits for a slot
	FrameAssign                                 // master, to a spare: its slot
	FrameRequestsSpent                          // child: it has served as many requests as it may
	FrameStacks                                 // master: a question; child, with the same number: the stacks of its goroutines, or a profile
	FrameStopSignal                             // child: a signal from outside told it to end
	FrameLinkLost                               // child: a link ended that it did not close
	FrameForcedConns                            // child: its drain is over, and how many connections it cut
	FrameDeclaration                            // child, before it runs user code: its program declares another tree than the hello names
	FrameGuard                                  // master: which requests, or connections, the child refuses; a worker's first has the table of its requests, as the one handle
	FrameGuardedKey                             // child: what has become of requests with a key of a FrameGuard

	// The child's telemetry, a frame for each kind of payload; see PayloadFrame.
	FrameSpans   fdipc.Kind = 0x50 // child: finished spans
	FrameMetrics fdipc.Kind = 0x51 // child: what it has counted
)

// channelCredits bounds the descriptors that are on their way on a channel. The master sends
// a new listener process all sockets of the tree at once.
const channelCredits = 1024

// ConnConfig returns the configuration of either end of the channel between the master and a
// child. A handle that is offered on it is for that child alone, so the offer has no timeout:
// a child that was stopped for a while (SIGSTOP) would lack a socket or a link for ever.
func ConnConfig(handle func(*fdipc.Conn, *fdipc.Frame), lost func(*fdipc.Conn, error)) fdipc.Config {
	return fdipc.Config{Handler: handle, Closed: lost, Credits: channelCredits, ClaimTimeout: -1}
}

// Role is what a child is.
type Role string

// The roles.
const (
	RoleWorker   Role = "worker"
	RoleListener Role = "listener"
	RoleCheck    Role = "check" // it says whether its program can take over the state in its configuration, and ends
)

// Hello tells a child what it is.
type Hello struct {
	Protocol    int
	Role        Role
	ID          int
	Path        string `json:",omitempty"` // of its pool in the tree
	Function    string `json:",omitempty"` // the name of its pool's function; "" = the pool's own
	Name        string // its registered name
	Slot        int
	Generation  int
	Incarnation int
	Tree        string        // digest of the tree's declaration: a child that declares another sends its own
	Config      []byte        `json:",omitempty"` // a short one
	ConfigSize  int           `json:",omitempty"` // in bytes, of a long one: the last handle of the frame, a sealed file in memory
	Drain       time.Duration // how long it has when it is asked to stop
	OrphanDrain time.Duration // how long it has when the master is gone
	Requests    int64         `json:",omitempty"` // after which it is replaced; 0 = never
	Host, Boot  string        `json:",omitempty"` // in a cluster

	// The values of a worker's pool that the worker needs.
	Restart       supervisor.Restart `json:",omitempty"`
	HealthPath    string             `json:",omitempty"` // "" = none
	HealthTimeout time.Duration      `json:",omitempty"`
	Timeouts      Timeouts           `json:",omitzero"`
	Alone         bool               `json:",omitempty"` // it gets one connection, which may kill it
	Figures       bool               `json:",omitempty"` // a generation may be judged: it counts what it serves, and old ones serve beside it
}

// Timeouts are the deadlines of each request, since its beginning; 0 = none.
type Timeouts struct{ Soft, Hard time.Duration }

// First returns the first one. Each request may be given another.
func (t Timeouts) First() time.Duration { return cmp.Or(t.Soft, t.Hard) }

// Grace returns how long after the first the hard one is.
func (t Timeouts) Grace() time.Duration { return t.Hard - t.First() }

// DeclarationFrame is what the child's program declares of its tree, as package declaration writes
// it.
type DeclarationFrame struct{ Lines []string }

// AssignFrame gives a spare its slot.
type AssignFrame struct {
	Name        string
	Slot        int
	Incarnation int
	Requests    int64 `json:",omitempty"` // as in Hello
}

// StopSignalFrame is a signal from outside that told a child to end.
type StopSignalFrame struct{ Signal string }

// StopAccepting is the payload of the master's FrameStopAccepting.
type StopAccepting struct {
	Succeeded bool `json:",omitempty"` // another listener process accepts what is in the backlogs
}

// StopRequest begins a child's drain.
type StopRequest struct {
	Drain time.Duration // until DrainContext ends
	Idle  time.Duration // until connections without a request are closed
	Park  bool          `json:",omitempty"` // connections between two requests go back to the listener process: other workers go on
}

// ExitNotice is why a child ends, as the child says.
type ExitNotice struct {
	Kind ExitNoticeKind
	Text string `json:",omitempty"`

	Forced int `json:",omitempty"` // connections that its drain cut at the deadline
}

// ExitNoticeKind is the kind of an exit notice.
type ExitNoticeKind string

// The kinds of exit notices.
const (
	NoticeNormal   ExitNoticeKind = "normal"   // the worker function returned nil
	NoticeShutdown ExitNoticeKind = "shutdown" // it returned after it was asked to stop
	NoticeError    ExitNoticeKind = "error"    // it returned an error, or did not get what the master sent it
	NoticePanic    ExitNoticeKind = "panic"    // it panicked: of a goroutine of the master only
	NoticeUnfit    ExitNoticeKind = "unfit"    // this program cannot be that child
)

// maxForced bounds ExitNotice.Forced.
const maxForced = 1 << 30

// Cut returns the exit notice with its text cut to its bounds. The value and the stack of a
// panic are cut separately.
func (n ExitNotice) Cut() ExitNotice {
	n.Forced = min(max(n.Forced, 0), maxForced)
	if n.Kind != NoticePanic {
		n.Text = supervisor.Cut(n.Text)
		return n
	}
	value, stack, _ := strings.Cut(strings.TrimPrefix(n.Text, PanicMark), "\n\n")
	n.Text = PanicMark + supervisor.Cut(value) + "\n\n" + supervisor.Cut(stack)
	return n
}

// PanicMark begins the text of an exit notice of kind NoticePanic. The value, an empty line
// and the stack follow.
const PanicMark = "panic: "

// Sibling names a child to another: in a link, and when it is gone.
type Sibling struct {
	Role   Role
	Worker netactor.Worker
	Link   uint64 `json:",omitempty"` // the number of the link to it, in a FrameLink
}

// LinkLostFrame says that link number Link, to the child ID, ended or could not be used, and
// why. Short is set when a process lacked descriptors for it.
type LinkLostFrame struct {
	ID    uint64
	Link  uint64
	Short bool   `json:",omitempty"`
	Why   string `json:",omitempty"`
}

// GuardFrame says which keys of requests killed workers, in place of an earlier one, of the same
// pool.
type GuardFrame struct {
	Pool string `json:",omitempty"` // to the listener process; a worker has one
	Keys []GuardedKey
}

// GuardedKey is a key that was in flight when a worker died.
type GuardedKey struct {
	Key    []byte
	Refuse bool   `json:",omitempty"` // master: requests with it are refused
	Probe  uint64 `json:",omitempty"` // master: but for one, if no earlier frame had this number
	Worker uint64 `json:",omitempty"` // master, to the listener process: which goes to this worker

	Pool string `json:",omitempty"` // listener process: whose key it is

	Answered bool   `json:",omitempty"` // child: a request with it was answered
	Refused  uint64 `json:",omitempty"` // child: requests refused since it said so last
}

// HeartbeatFrame is a question of the master, and the child's answer to it.
type HeartbeatFrame struct {
	N      uint64
	Unwell string `json:",omitempty"` // of an answer: what is wrong, "" if nothing

	Requests uint64          `json:",omitempty"` // of an answer: that it has served
	Ask      bool            `json:",omitempty"` // of a question: for Figures
	Figures  *canary.Figures `json:",omitempty"` // of an answer
}

// What a StacksFrame can ask for in place of a profile. The answer is JSON: the []actors.ActorInfo
// of the child, the state of one actor as text, its []actors.MessageCount during Time.
const (
	ActorList     = "actors/list"
	ActorState    = "actors/state"
	ActorMessages = "actors/messages"
)

// StacksFrame is a question of the master, for the stacks, for a profile or about the child's
// actors, and the child's answer to it.
type StacksFrame struct {
	N       uint64
	Profile string        `json:",omitempty"` // of a question: its name; "" = the stacks
	Debug   int           `json:",omitempty"` // of a question for a profile
	Time    time.Duration `json:",omitempty"` // of a question for a CPU profile, or about one actor
	Actor   string        `json:",omitempty"` // of a question about one actor: its name
	Text    string        `json:",omitempty"` // of an answer
	Data    []byte        `json:",omitempty"` // of an answer: the profile
	Err     string        `json:",omitempty"` // of an answer: why there is no profile
}

// PayloadFrame returns the kind of the frame that carries a payload of the child's pipeline.
func PayloadFrame(p tracing.PayloadKind) fdipc.Kind {
	if p == tracing.Metrics {
		return FrameMetrics
	}
	return FrameSpans
}

// Process returns the child as package tracing describes processes.
func (w Hello) Process() tracing.ProcessResource {
	return tracing.ProcessResource{
		Role: string(w.Role), Name: w.Name, ID: w.ID, Slot: w.Slot,
		Generation: w.Generation, Incarnation: w.Incarnation,
	}
}

// Sibling returns what other children are told of a child.
func (w Hello) Sibling() Sibling {
	return Sibling{Role: w.Role, Worker: netactor.Worker{
		ID: uint64(w.ID), Name: w.Name, Pool: w.Path, Slot: w.Slot,
		Generation: w.Generation, Incarnation: w.Incarnation, Beside: w.Figures, Alone: w.Alone,
	}}
}
