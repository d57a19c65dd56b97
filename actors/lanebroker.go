package actors

import (
	"encoding/binary"
	"log/slog"
	"maps"

	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// addressPair names two processes, the lower address first.
type addressPair struct{ a, b string }

func pairOf(a, b string) addressPair {
	if a > b {
		a, b = b, a
	}
	return addressPair{a, b}
}

// laneBroker makes the lanes between the children of a master. It is guarded by peers.mu.
type laneBroker struct {
	newest map[addressPair]uint64 // the number of the newest lane between two children
	last   uint64                 // the number of the newest lane of all
	// makeEnds makes the two ends of a lane. Immutable.
	makeEnds func(a, b Conn) (*fdipc.Handle, *fdipc.Handle, error)
}

// processEnded forgets the lanes of a process.
func (b *laneBroker) processEnded(address string) {
	maps.DeleteFunc(b.newest, func(pair addressPair, _ uint64) bool { return pair.a == address || pair.b == address })
}

// makeLane joins from and the process with an address, in the master.
func (ps *peers) makeLane(from *peer, address string, lost uint64) {
	if ps.foreign != nil && ps.isForeign(address) {
		ps.foreign.step(foreign.Event{Kind: foreign.Asked, Pair: foreign.Pair{Local: from.address, Foreign: address}, Number: lost})
		return
	}
	key := pairOf(from.address, address)
	busy := from.waiting() >= maxGrants
	if p := ps.find(address); p != nil && p.waiting() >= maxGrants {
		busy = true
	}
	ps.mu.Lock()
	to := ps.byAddress[address]
	reason, ended := ps.ended.find(address)
	switch {
	case ps.byAddress[from.address] != from || from == to:
		ps.mu.Unlock()
		return
	case to == nil:
		ps.mu.Unlock()
		if ended { // from may not have heard. First: the refusal alone ends what waits without the reason
			from.postProcessEnded(address, reason)
		}
		from.postLane(laneNoProcess, address, nil)
		return
	case ps.broker.newest[key] > lost:
		ps.mu.Unlock()
		return
	case lost > ps.broker.last:
		ps.mu.Unlock()
		ps.countMalformed(from.address, wire.KindLane)
		return
	case busy:
		ps.mu.Unlock()
		ps.refuseLane(from, address, ErrBusy)
		return
	}
	ps.broker.last++
	number := ps.broker.last
	ps.broker.newest[key] = number
	ps.mu.Unlock()

	one, other, err := ps.broker.makeEnds(from.conn, to.conn)
	if err != nil {
		ps.log.Error("no channel between two processes", slog.String("from", from.address), slog.String("to", address), slog.Any("error", err))
		ps.mu.Lock()
		if ps.broker.newest[key] == number {
			delete(ps.broker.newest, key)
		}
		ps.mu.Unlock()
		// To both: one that has asked meanwhile was not answered.
		ps.refuseLane(from, address, err)
		ps.refuseLane(to, from.address, err)
		return
	}
	ps.grant(from, to, number, one)
	ps.grant(to, from, number, other)
}

// refuseLane tells p that there is no lane to the process with an address.
func (ps *peers) refuseLane(p *peer, address string, err error) {
	p.postLane(laneFailed, address, func(b []byte) []byte { return appendError(b, err) })
}

// grant gives p its end of a lane to another child.
func (ps *peers) grant(p, other *peer, number uint64, h *fdipc.Handle) {
	p.postLane(laneGrant, other.address, func(b []byte) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(b, other.incarnation), number)
	}, h)
}
