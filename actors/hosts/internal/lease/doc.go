// Package lease is the rules by which a host keeps a session with the engine, holds names under it,
// and lets go of them in time: a state machine without clocks, goroutines or calls. The driver (in
// package hosts) tells it what has happened, and does what it says, in its order.
//
// What the rules hold, whatever is lost, late or done twice:
//
//   - What is owned is told to stop before the engine can give its name to another host: Margin
//     before the session's lease can end, counted from when the last renewal that succeeded was
//     sent, not from its answer.
//   - That time is looked at before every event, and the driver has a timer for it that waits for
//     no call (Arm): a renewal that hangs does not put it off.
//   - A name is deleted by the revision that made its entry, never by its name alone, so that a
//     delete that comes late does not take away what another has by now.
//   - A claim whose answer is lost is made again under the same token: at most one of them counts.
//     An entry of this session that nobody here waits for is deleted when the watch shows it.
//   - A name is not claimed anew while what it was for still runs here.
package lease

import (
	"fmt"
	"time"
)

// Time is a time of one host's clock since some moment: CLOCK_BOOTTIME, as that goes on while the
// system is suspended.
type Time time.Duration

// A Config is what is known at the start.
type Config struct {
	TTL    time.Duration // of the session's lease
	Margin time.Duration // before its end, by when what is owned is told to stop
	Owner  string        // whose sessions these are, unique in the world
	Before int64         // lease of a predecessor that is known to be dead; 0: none is
}

// EventKind is what has happened.
type EventKind uint8

// The events. Each effect that is a call is answered by exactly one of the events behind it; a
// call that may or may not have been done answers Failed.
const (
	Wake     EventKind = iota // the time of Next has come, or that of Arm
	Want                      // Name is wanted here
	Drop                      // Name is no longer wanted, and what it was for has stopped
	Close                     // all is to end
	Abort                     // all is to end without waiting for what is owned
	Granted                   // of Grant: Lease, asked for at Sent
	Entered                   // of Enter under Lease: this host's entry was made by Revision
	Barred                    // of Enter under Lease: there is one, of Owner and by Boot, under Other, made by Revision
	Renewed                   // of Renew of Lease that was sent at Sent
	Gone                      // of Renew or Claim: Lease has ended
	Revoked                   // of Revoke of Lease
	Claimed                   // of Claim of Name by Token: its entry was made by Revision
	Refused                   // of Claim of Name by Token: it is held by Owner under Other, made by Revision
	Deleted                   // of Delete of Name made by Revision: it is gone
	Failed                    // of Of, with its Lease, Name, Token, Revision: not known whether it was done
	Seen                      // the watch shows Name with Token under Lease, made by Revision
	Vanished                  // the watch shows that the entry of Name (this host's: none) made by Revision is deleted
	Listed                    // all there is at Revision: this host's entry made by Entered, names by Made
)

// An Event is the input of Step. Its kind says which fields it has.
type Event struct {
	Kind     EventKind
	Of       EffectKind
	Name     string
	Owner    string
	Boot     string
	Lease    int64
	Other    int64
	Token    uint64
	Revision uint64
	Entered  uint64
	Made     map[string]uint64 // by name
	Sent     Time
}

// EffectKind is what is to be done.
type EffectKind uint8

// The effects. Calls must end within Config.TTL/3 of their start, and are answered even so.
const (
	Grant  EffectKind = iota // call: ask for a lease, and tell Sent with its answer
	Enter                    // call: make this host's entry under Lease if there is none
	Renew                    // call: renew Lease, and tell Sent with its answer
	Revoke                   // call: end Lease
	Claim                    // call: make Name's entry with Token under Lease, if there is none and Entered is there
	Delete                   // call: delete Name if its entry was made by Revision
	Arm                      // what is owned stops at At whatever else goes on; before the effects behind it
	Disarm                   // the last Arm holds no more
	Own                      // Name is held, by Revision: it may be used from now on
	Stop                     // Name is lost, since At: what it is for stops within Margin of that, and then Drop comes
	Answer                   // who wants Name hears Outcome, and no more is kept of it
	Report                   // the session's state has changed: Outcome
	End                      // all has ended; no event is heard after it
)

// Outcome is what became of a wish, or of the session.
type Outcome uint8

// The outcomes.
const (
	Taken   Outcome = iota // another holds the name, by Revision; of the session: another host has its name
	Closing                // the session is being closed
	Freed                  // the name was given back
	Live                   // the session has begun
	Lost                   // the session has ended, or may have; of a name given back: before the engine has freed it
	Doubted                // as Taken, after a claim without an answer, by whose entry others may have been refused
)

// An Effect is an output of Step. Its kind says which fields it has.
type Effect struct {
	Kind     EffectKind
	Outcome  Outcome
	Name     string
	Boot     string
	Lease    int64
	Token    uint64
	Revision uint64
	Entered  uint64
	Sent, At Time
}

func (k EffectKind) String() string {
	return [...]string{"grant", "enter", "renew", "revoke", "claim", "delete", "arm", "disarm", "own", "stop", "answer", "report", "end"}[k]
}

func (k EventKind) String() string {
	return [...]string{
		"wake", "want", "drop", "close", "abort", "granted", "entered", "barred", "renewed", "gone", "revoked",
		"claimed", "refused", "deleted", "failed", "seen", "vanished", "listed",
	}[k]
}

func (o Outcome) String() string {
	return [...]string{"taken", "closing", "freed", "live", "lost", "doubted"}[o]
}

// String returns one line, for goldens.
func (e Effect) String() string {
	switch e.Kind {
	case Grant:
		return "grant"
	case Enter, Renew, Revoke:
		return fmt.Sprintf("%v %d", e.Kind, e.Lease)
	case Claim:
		return fmt.Sprintf("claim %s token %d under %d, entered by %d", e.Name, e.Token, e.Lease, e.Entered)
	case Delete:
		return fmt.Sprintf("delete %s made by %d", e.Name, e.Revision)
	case Arm:
		return fmt.Sprintf("arm %v", time.Duration(e.At))
	case Own, Stop:
		return fmt.Sprintf("%v %s by %d", e.Kind, e.Name, e.Revision)
	case Answer:
		return fmt.Sprintf("answer %s: %v", e.Name, e.Outcome)
	case Report:
		return fmt.Sprintf("session %v", e.Outcome)
	case Disarm, End:
	}
	return e.Kind.String()
}
