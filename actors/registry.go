package actors

import (
	"context"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
)

// Process returns the PID of this process.
func (s *System) Process() *actor.PID { return ProcessPID(s.address) }

// Lookup returns the PID of a name. It asks no process and is never nil: the PID stands for the
// name, in every process of the tree, and each message sent to it reaches the holder of that
// moment. There are three kinds of names, tried in this order:
//
//	sessions       registered with Register
//	web/0/cache    the actor cache in the process that has the name web/0
//	sessions       else the actor of the master that was spawned with this name
//
// A name without a holder is [ErrNoActor] to Ask, Send and Monitor.
func (s *System) Lookup(name string) *actor.PID { return actor.NewPID(nameAddress, name) }

// LookupAt is Lookup in the tree of another host of the cluster, by its name: LookupAt("b",
// "web/0/cache") follows the actor cache in web/0 there. The PID means the same on every host,
// unlike that of Lookup, which means a name in the tree of whoever uses it. While no trunk leads to
// the host, it is [ErrUnreachable]. A change of a name there reaches this host soon, and is not
// waited for: a message may still reach the former holder, or find that it has ended.
func (s *System) LookupAt(host, name string) *actor.PID {
	return actor.NewPID(nameAddress+host, name)
}

// LookupCluster returns the PID of a name of the cluster, which means the same on every host: each
// message sent to it reaches who holds the name in the whole cluster, as far as this host knows,
// which is some milliseconds behind. So a message may still reach the former holder, or find that
// it has ended. A name without a holder is [ErrNoActor]; cut off from what the hosts agree by,
// names are [ErrUnavailable].
func LookupCluster(name string) *actor.PID { return actor.NewPID(nameAddress+clusterHost, name) }

// Whereis returns the holder of a name. In a child process it asks the master, under ctx. A name
// without a holder is [ErrNoActor].
func (s *System) Whereis(ctx context.Context, name string) (*actor.PID, error) {
	v, err := s.names.call(ctx, nameWhereis, name, nil)
	if err != nil {
		return nil, fmt.Errorf("actors: whereis %q: %w", name, err)
	}
	pid, _ := v.(*actor.PID)
	return pid, nil
}

// Register gives a name to a live actor or process. The name is free again when its holder ends, or
// with [System.Unregister]. A name that another one holds is [ErrNameTaken]. In a child process it
// asks the master, under ctx; a child names its own actors only, and a name that is the tree's own
// is [ErrReserved].
func (s *System) Register(ctx context.Context, name string, pid *actor.PID) error {
	if _, err := s.names.call(ctx, nameRegister, name, pid); err != nil {
		return fmt.Errorf("actors: register %q: %w", name, err)
	}
	return nil
}

// Reregister is Register that takes the name from its holder. Messages sent from then on reach pid;
// what was sent before stays with the old holder.
func (s *System) Reregister(ctx context.Context, name string, pid *actor.PID) error {
	if _, err := s.names.call(ctx, nameReregister, name, pid); err != nil {
		return fmt.Errorf("actors: reregister %q: %w", name, err)
	}
	return nil
}

// Unregister frees a name if pid holds it, and else does nothing.
func (s *System) Unregister(ctx context.Context, name string, pid *actor.PID) error {
	if _, err := s.names.call(ctx, nameUnregister, name, pid); err != nil {
		return fmt.Errorf("actors: unregister %q: %w", name, err)
	}
	return nil
}
