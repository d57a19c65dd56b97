package netactor

import (
	"errors"
	"fmt"
)

// Limits bounds what a dispatching listener hands out. The connections that a worker has and those
// that it is offered count; a connection ends when the worker closes it.
type Limits struct {
	PerWorker int `json:",omitzero"` // connections a worker may have, offered and open; 0 is no limit
	Total     int `json:",omitzero"` // the same over all workers; 0 is no limit
	Window    int `json:",omitzero"` // connections a worker may be offered and not yet have claimed; 0 means 32, at most 1024

	// AtLimit is what happens to a connection when Total is reached, or PerWorker at every worker
	// that is available. If no worker is available, because there is none or all stall, the
	// connection waits, whatever AtLimit is.
	AtLimit AtLimit `json:",omitzero"`
	// Answer is what AnswerAtLimit writes, at most 4096 bytes: for example a whole HTTP response.
	Answer string `json:",omitzero"`
}

// Bounds of Limits.Window.
const (
	DefaultWindow = 32
	MaxWindow     = 1024
)

// LinkCredits is the number of credits for the links between the listener process and the workers
// (fdipc.Config.Credits, at both ends). It is twice a worker's default window, so that one listener
// does not use up the credits of another.
const LinkCredits = 2 * DefaultWindow

// AtLimit is what happens to a connection that comes when a limit is reached.
type AtLimit uint8

const (
	// WaitAtLimit leaves it in the kernel's backlog until a connection ends.
	WaitAtLimit AtLimit = iota
	// CloseAtLimit accepts and closes it.
	CloseAtLimit
	// AnswerAtLimit accepts it, writes Limits.Answer, and closes it. What the client sends is
	// ignored.
	AnswerAtLimit

	atLimits // how many there are
)

var atLimitNames = [atLimits]string{"wait", "close", "answer"}

// String returns wait, close or answer.
func (a AtLimit) String() string {
	if a < atLimits {
		return atLimitNames[a]
	}
	return fmt.Sprintf("AtLimit(%d)", uint8(a))
}

// maxAnswer bounds Limits.Answer in bytes: it must fit a new connection's send buffer.
const maxAnswer = 4096

// Validate returns an error for the first field that is not valid, or nil.
func (l Limits) Validate() error {
	switch {
	case l.PerWorker < 0, l.Total < 0:
		return errors.New("a limit is negative")
	case l.Window < 0 || l.Window > MaxWindow:
		return fmt.Errorf("Window is not between 1 and %d (0 = %d)", MaxWindow, DefaultWindow)
	case l.AtLimit >= atLimits:
		return errors.New("AtLimit is none of wait, close, answer")
	case l.AtLimit != WaitAtLimit && l.PerWorker == 0 && l.Total == 0:
		return errors.New("AtLimit needs PerWorker or Total")
	case (l.AtLimit == AnswerAtLimit) != (l.Answer != ""):
		return errors.New("Answer goes with AtLimit answer, and only with it")
	case len(l.Answer) > maxAnswer:
		return fmt.Errorf("Answer is longer than %d bytes", maxAnswer)
	}
	return nil
}
