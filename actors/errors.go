package actors

import (
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/supervisor"
)

// Why a message, an ask or a call could not be served. They are wrapped; test with errors.Is.
var (
	// ErrNoActor: there is no such actor. The id, the name or the process is unknown, or the
	// process ended so long ago that its exit reason is not kept any more.
	ErrNoActor = errors.New("no such actor")
	// ErrDown: the actor or its process ended before it answered. See [DownError].
	ErrDown = errors.New("down")
	// ErrFull: the actor's bounded mailbox is full.
	ErrFull = errors.New("mailbox full")
	// ErrBusy: the channel to the actor's process stayed full for [Config].SendWait, or, where
	// nothing may wait, was full.
	ErrBusy = errors.New("channel to the process full")
	// ErrType: the message's type can not cross processes: it is neither a protobuf message nor
	// registered with [RegisterType], here or at the other end.
	ErrType = codec.ErrType
	// ErrMalformed: the bytes of a message are not what its type says, or the message could not be
	// encoded.
	ErrMalformed = codec.ErrMalformed
	// ErrSkew: the two processes run versions of the program in which the message's type has
	// different fields, and the receiver's can not hold what was sent.
	ErrSkew = codec.ErrSkew
	// ErrAnswerType: the answer is not of the type that [Ask] was called for.
	ErrAnswerType = errors.New("answer has another type")
	// ErrName: the name can not be used. Names are 1 to 255 bytes of UTF-8 without '$', '@' and
	// control characters.
	ErrName = errors.New("unusable name")
	// ErrNameTaken: another live actor or process has the name.
	ErrNameTaken = errors.New("name taken")
	// ErrReserved: the name is that of an actor of the master, or the tree's own
	// ([Hooks].Reserved): a child cannot have it.
	ErrReserved = errors.New("name reserved for the tree")
	// ErrTooMany: the process has as many asks that are not answered, monitors, or names as one
	// process may have in another: 65,536, 65,536, and 16,384.
	ErrTooMany = errors.New("too many for one process")
	// ErrClosed: the system was shut down.
	ErrClosed = errors.New("actor system closed")
	// ErrLane: the channel between two live processes broke, or could not be made. What was on it
	// is in doubt; the next message makes a new one.
	ErrLane = errors.New("channel between processes broken")
	// ErrUnreachable: no trunk leads to the host of the actor, or the one that did was lost. It is
	// not known whether the actor lives, nor what became of a message that was sent; the same PID
	// works again when there is a trunk.
	ErrUnreachable = errors.New("host unreachable")
	// ErrNoHost: the host of a name is not among the peers of this one.
	ErrNoHost = errors.New("no such host")
	// ErrForeign: a message that carries handles cannot leave its host.
	ErrForeign = errors.New("handles cannot leave their host")
	// ErrUnavailable: the cluster has not agreed, as who asks is cut off or no majority is there. A
	// change that was asked for is in doubt: it may have been done, or may be done yet.
	ErrUnavailable = errors.New("cluster unavailable")
	// ErrStale: the process was attached before with a later incarnation.
	ErrStale = errors.New("stale incarnation")
	// ErrReplaced: the program of the process was replaced in place, and the actor, the ask or the
	// message did not go along. See [System.Suspend].
	ErrReplaced = errors.New("process replaced in place")
)

// errTooManyAsks is made once: a process that leaks asks gets it for each.
var errTooManyAsks = fmt.Errorf("%w: %d asks that are not answered, the limit", ErrTooMany, maxAsks)

// DownError is the error of what waited for an actor that has ended, or for one of a process that
// has ended or cannot be reached: then errors.Is(err, ErrLane) or errors.Is(err, ErrUnreachable)
// holds too, and the actor may live.
// errors.Is(err, ErrDown) holds for it.
type DownError struct {
	PID    *actor.PID        // the actor that was asked
	Reason supervisor.Reason // why it ended
}

func (e *DownError) Error() string {
	return fmt.Sprintf("%s is down: %s", pidString(e.PID), e.Reason)
}

// Is makes errors.Is(err, ErrDown) hold.
func (e *DownError) Is(target error) bool { return target == ErrDown }

// Unwrap returns the error that the reason has, or nil.
func (e *DownError) Unwrap() error { return e.Reason.Cause }

// downError returns the error of what waited for pid, which ended for reason. If the reason is that
// there was no such actor, that is the error.
func downError(pid *actor.PID, reason supervisor.Reason) error {
	if isNoActor(reason) {
		return ErrNoActor
	}
	return &DownError{PID: pid, Reason: reason}
}

// remoteError is an error of this package that came from another process.
type remoteError struct {
	kind error  // one of the sentinels, or nil
	text string // as the other process put it
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// Codes of errors on the wire. They are never renumbered.
const (
	codeOther     = 0
	codeNoActor   = 1
	codeDown      = 2
	codeFull      = 3
	codeBusy      = 4
	codeType      = 5
	codeMalformed = 6
	codeName      = 7
	codeNameTaken = 8
	codeClosed    = 9
	codeSkew      = 10
	codeLane      = 11
	codeReserved  = 12
	codeTooMany   = 13
	codeReplaced  = 14

	codeUnreachable = 15
	codeForeign     = 16
	codeUnavailable = 17
	codeNoHost      = 18
)

var errorCodes = []struct {
	code byte
	err  error
}{
	{codeNoActor, ErrNoActor},
	{codeFull, ErrFull},
	{codeBusy, ErrBusy},
	{codeType, ErrType},
	{codeMalformed, ErrMalformed},
	{codeName, ErrName},
	{codeNameTaken, ErrNameTaken},
	{codeClosed, ErrClosed},
	{codeSkew, ErrSkew},
	{codeLane, ErrLane},
	{codeReserved, ErrReserved},
	{codeTooMany, ErrTooMany},
	{codeReplaced, ErrReplaced},
	{codeUnreachable, ErrUnreachable},
	{codeForeign, ErrForeign},
	{codeUnavailable, ErrUnavailable},
	{codeNoHost, ErrNoHost},
}

// appendError appends err: a code, then for ErrDown its reason, else its text.
func appendError(b []byte, err error) []byte {
	if down, ok := errors.AsType[*DownError](err); ok {
		return appendReason(append(b, codeDown), down.Reason)
	}
	return appendText(b, err)
}

// error reads what appendError wrote; target is the PID a DownError names.
func readError(r *wire.Reader, target *actor.PID) error {
	code := r.Byte()
	if code == codeDown {
		return &DownError{PID: target, Reason: readReason(r)}
	}
	return readCoded(r, code)
}
