package coppice

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// protocol is the version of the frames below. A child of another version is
// not started.
const protocol = 1

// Registered names that are the tree's own.
const (
	masterName    = "master"
	listenersName = "listeners" // the supervisor of the one below
	listenerName  = "listener"
)

// The frames of process life, on every channel between the master and a child.
// They are few and rare, so their payloads are JSON. docs/protocol.md has the
// sequence.
const (
	frameHello         fdipc.Kind = 0x10 + iota // master: who you are; the first frame of all
	frameReady                                  // child: I do my work
	frameStop                                   // master: drain and end
	frameExitNotice                             // child: I end, and why; the last frame of all
	frameLink                                   // master: a channel to a sibling, as the one handle
	frameWorkerGone                             // master, to the listener process: that worker is reaped
	frameStopAccepting                          // master: accept no more; listener process: nothing is unclaimed now
	frameHeartbeat                              // master: are you there; child, with the same number: yes, or what is wrong
	frameSpareReady                             // child, a spare: I wait for a place
	frameAssign                                 // master, to a spare: your place
	frameRequestsSpent                          // child: I have had my share of requests
	frameStacks                                 // master: where do your goroutines stand; child, with the same number: there
	frameStopSignal                             // child: I was told by a signal to end, and not by you
	frameLinkLost                               // child: a link has ended, and I have not ended it
	frameForcedConns                            // child: the drain is over, and has cut so much

	// The child's telemetry, each kind of payload one frame; see payloadFrame.
	frameSpans   fdipc.Kind = 0x50 // child: finished spans
	frameMetrics fdipc.Kind = 0x51 // child: what it has counted
)

// channelCredits is how many descriptors may be under way on a channel: a new
// listener process is sent every socket of the tree at once.
const channelCredits = 1024

// channel is the configuration of either end of the channel between the master and a
// child. What is offered on it is for that child and nobody else, so it is never taken
// back: a child that was stopped for a while would lack a socket or a link for ever.
func channel(handle func(*fdipc.Conn, *fdipc.Frame), lost func(*fdipc.Conn, error)) fdipc.Config {
	return fdipc.Config{Handler: handle, Closed: lost, Credits: channelCredits, ClaimTimeout: -1}
}

// role is what a child is.
type role string

const (
	roleWorker   role = "worker"
	roleListener role = "listener"
)

// hello tells a child who it is.
type hello struct {
	Protocol    int
	Role        role
	ID          int
	Path        string `json:",omitempty"` // of its pool in the tree
	Name        string // its registered name
	Slot        int
	Generation  int
	Incarnation int
	Tree        []string      `json:",omitempty"` // the master's, to compare
	Config      []byte        `json:",omitempty"` // up to inlineConfig
	ConfigSize  int           `json:",omitempty"` // of a longer one: of a process the last handle, see sealed
	Drain       time.Duration // given to it when it is asked to stop
	Requests    int64         `json:",omitempty"` // after which it is spent; 0 = never
}

// assignFrame gives a spare its place.
type assignFrame struct {
	Name        string
	Slot        int
	Incarnation int
	Requests    int64 `json:",omitempty"` // as in hello
}

// stopSignalFrame is a signal from outside that told a child to end.
type stopSignalFrame struct{ Signal string }

// stopRequest begins a child's drain.
type stopRequest struct {
	Drain time.Duration // until DrainContext ends
	Idle  time.Duration // until connections without a request are closed
}

// exitNotice is why a child ends, in its own words.
type exitNotice struct {
	Kind exitNoticeKind
	Text string `json:",omitempty"`

	Forced int `json:",omitempty"` // connections that the drain has cut at its deadline
}

type exitNoticeKind string

const (
	noticeNormal   exitNoticeKind = "normal"   // the worker function returned nil
	noticeShutdown exitNoticeKind = "shutdown" // it returned after it was asked to
	noticeError    exitNoticeKind = "error"    // it returned an error, or lacks what the master gave it
	noticePanic    exitNoticeKind = "panic"    // it panicked, as a goroutine of the master
	noticeUnfit    exitNoticeKind = "unfit"    // this program cannot be that child
)

// maxForced bounds how many connections a child can say that it has cut.
const maxForced = 1 << 30

// cut returns the exit notice with its text within bounds: the value of a panic and the
// stack each by itself.
func (bye exitNotice) cut() exitNotice {
	bye.Forced = min(max(bye.Forced, 0), maxForced)
	if bye.Kind != noticePanic {
		bye.Text = supervisor.Cut(bye.Text)
		return bye
	}
	value, stack, _ := strings.Cut(strings.TrimPrefix(bye.Text, panicMark), "\n\n")
	bye.Text = panicMark + supervisor.Cut(value) + "\n\n" + supervisor.Cut(stack)
	return bye
}

// panicMark begins the text of a exit notice of kind noticePanic. The value follows, an empty
// line, and the stack.
const panicMark = "panic: "

// agrees tells whether a child that said so ends like that.
func (k exitNoticeKind) agrees(e Exit) bool {
	if e.PID == 0 || e.Lost != nil { // a goroutine, or nobody knows better
		return true
	}
	switch k {
	case noticeNormal, noticeShutdown:
		return e.Signal == 0 && e.Code == exitOK
	case noticeError, noticePanic:
		return e.Signal == 0 && e.Code == exitFailed
	case noticeUnfit:
		return e.Signal == 0 && e.Code == exitUsage
	}
	return false
}

// sibling names a child to another: in a link, and when it is gone.
type sibling struct {
	Role   role
	Worker netactor.Worker
	Link   uint64 `json:",omitempty"` // the number of the link to it, of a frameLink
}

// linkLostFrame says that the link of a number, to the child with an ID, has ended or could not be
// used, and why: for one that lacked descriptors, Short.
type linkLostFrame struct {
	ID    uint64
	Link  uint64
	Short bool   `json:",omitempty"`
	Why   string `json:",omitempty"`
}

// control returns the frame that carries v on the control lane.
func control(kind fdipc.Kind, v any, handles ...*fdipc.Handle) *fdipc.Frame {
	payload, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("coppice: %T does not encode: %v", v, err)) // our own types always do
	}
	return &fdipc.Frame{Kind: kind, Lane: fdipc.Control, Payload: payload, Handles: handles}
}

// maxTelemetry bounds a payload of a child's pipeline, in bytes: package tracing/otlp
// sends 256 KiB, and one span that is longer by itself.
const maxTelemetry = 2 << 20

// maxPayload bounds what a child sends in a frame of this package, in bytes: texts of
// supervisor.MaxText, written as JSON, which makes up to six bytes of one. What is
// longer is refused before it is read.
func maxPayload(kind fdipc.Kind) int {
	switch kind {
	case frameStacks:
		return 6*maxStacks + 1024
	case frameSpans, frameMetrics:
		return maxTelemetry
	default:
		return 4*6*supervisor.MaxText + 1024
	}
}

// ownKind reports whether frames of that kind are of this package.
func ownKind(k fdipc.Kind) bool {
	return k >= frameHello && k <= frameForcedConns || k == frameSpans || k == frameMetrics
}

// withinBounds returns an error for a frame that is longer than maxPayload. It is asked
// of the frames of process life, and of telemetry.
func withinBounds(f *fdipc.Frame) error {
	if n := maxPayload(f.Kind); len(f.Payload) > n {
		return fmt.Errorf("coppice: frame %#x of %d bytes is longer than %d", uint8(f.Kind), len(f.Payload), n)
	}
	return nil
}

// decode reads what control wrote.
func decode[T any](f *fdipc.Frame) (T, error) {
	var v T
	if err := json.Unmarshal(f.Payload, &v); err != nil {
		return v, fmt.Errorf("coppice: frame %#x: %w", uint8(f.Kind), err)
	}
	return v, nil
}

// payloadFrame is the kind of frame that carries a payload of the child's pipeline.
func payloadFrame(p tracing.Payload) fdipc.Kind {
	if p == tracing.Metrics {
		return frameMetrics
	}
	return frameSpans
}

// process is what tracing is told of a child.
func (w hello) process() tracing.Process {
	return tracing.Process{
		Role: string(w.Role), Name: w.Name, ID: w.ID, Slot: w.Slot,
		Generation: w.Generation, Incarnation: w.Incarnation,
	}
}

// sibling is what the others are told of a child.
func (w hello) sibling() sibling {
	return sibling{Role: w.Role, Worker: netactor.Worker{
		ID: uint64(w.ID), Name: w.Name, Pool: w.Path, Slot: w.Slot,
		Generation: w.Generation, Incarnation: w.Incarnation,
	}}
}
