package actors

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/asynkron/protoactor-go/actor"
)

// Addresses and ids with a meaning of their own.
const (
	nameAddress      = "@"        // the PID's id is a registered name
	askID            = "ask$"     // the PID's RequestId is an ask that waits for its answer
	processID        = "process$" // the process itself
	foreignWatcherID = "monitor$" // watches local actors that this package did not spawn
)

// ProcessPID returns the PID of the process with an address. Stop of it asks the process to drain,
// a monitor on it fires with the process's exit reason. Messages to it are dead letters.
func ProcessPID(address string) *actor.PID { return actor.NewPID(address, processID) }

// checkName returns ErrName if s cannot be the name of an actor or a process, or a registered name.
func checkName(s string) error {
	if len(s) > 255 {
		return fmt.Errorf("%w: %d bytes, at most 255", ErrName, len(s))
	}
	if s == "" || !utf8.ValidString(s) {
		return ErrName
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '$' || r == '@' {
			return ErrName
		}
	}
	return nil
}

// reservedID reports whether an id is one of protoactor's own processes. Some of them panic at a
// user message, one publishes it to all.
func reservedID(id string) bool {
	return id == "deadletter" || id == "eventstream" || id == foreignWatcherID || strings.HasPrefix(id, "guardian$")
}

// pidString formats pid for people: web/0/cache for a name, 3/cache for an address.
func pidString(pid *actor.PID) string {
	switch {
	case pid == nil:
		return "no PID"
	case pid.Address == nameAddress:
		return pid.Id
	case pid.Id == processID:
		return "process " + pid.Address
	}
	return pid.Address + "/" + pid.Id
}
