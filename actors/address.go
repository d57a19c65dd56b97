package actors

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/asynkron/protoactor-go/actor"
)

// Addresses and ids with a meaning of their own.
const (
	nameAddress      = "@"        // the PID's id is a registered name; before the name of a host, one of that
	clusterHost      = "@"        // in place of a host's name: the name is one of the cluster
	masterSuffix     = ".0"       // behind a boot: the master of that host
	askID            = "ask$"     // the PID's RequestId is an ask that waits for its answer
	processID        = "process$" // the process itself
	foreignWatcherID = "monitor$" // watches local actors that this package did not spawn
)

// ProcessPID returns the PID of the process with an address. Stop of it asks the process to drain,
// a monitor on it fires with the process's exit reason. Messages to it are dead letters.
func ProcessPID(address string) *actor.PID { return actor.NewPID(address, processID) }

// nameOf returns the name that pid stands for; ok is false if it has an address. A name in the tree
// of another host begins with @ and that host's name.
func (lp *localProcess) nameOf(pid *actor.PID) (name string, ok bool) {
	switch {
	case pid.Address == "" || pid.Address[0] != nameAddress[0]:
		return "", false
	case len(pid.Address) == 1 || pid.Address[1:] == lp.host:
		return pid.Id, true
	}
	return pid.Address + "/" + pid.Id, true
}

// abroad splits a name in the tree of another host.
func abroad(name string) (host, rest string, ok bool) {
	if name == "" || name[0] != nameAddress[0] {
		return "", name, false
	}
	host, rest, _ = strings.Cut(name[1:], "/")
	return host, rest, true
}

// ofCluster reports whether a name is one of the cluster, which each master knows.
func ofCluster(name string) bool { return strings.HasPrefix(name, nameAddress+clusterHost+"/") }

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
