package coppice

import (
	"encoding/json"
	"net"
	"strings"
	"time"

	"github.com/coppice-go/coppice/netactor"
)

// ListenerInfo is one socket that the master holds.
type ListenerInfo struct {
	Name   string   `json:"name,omitempty"` // as asked for; may be empty
	Addr   net.Addr `json:"addr"`           // as bound
	Policy Policy   `json:"policy"`
	Paused bool     `json:"paused,omitempty"`

	// Refuses is set, beside Paused, when clients are refused, because the last pool that used the
	// listener is gone for good. It ends when a pool asks for the listener, or by ResumeListener.
	Refuses bool `json:"refuses,omitempty"`

	// Stats are the listener process's counts, also for each worker, and StatsAt is the time of its
	// report. With few workers, the report is at most a second older than the last change. Stats is
	// nil before the first report and with Shared and ReusePort, whose connections are not counted.
	Stats    *ListenerStats `json:"stats,omitempty"`
	StatsAt  time.Time      `json:"stats_at,omitzero"`
	Fairness float64        `json:"fairness,omitempty"` // Jain's index of the workers' shares: 1 is even

	owners []string // paths in the tree
}

// listenerWire is a ListenerInfo as it is sent to a worker: an interface cannot be decoded without
// its type.
type listenerWire struct {
	plainListener
	Addr addr `json:"addr"`
}

type plainListener ListenerInfo

// MarshalBinary encodes the ListenerInfo for a worker.
func (i ListenerInfo) MarshalBinary() ([]byte, error) {
	w := listenerWire{plainListener: plainListener(i)}
	if i.Addr != nil {
		w.Addr = addr{i.Addr.Network(), i.Addr.String()}
	}
	return json.Marshal(w)
}

// UnmarshalBinary decodes what MarshalBinary returned.
func (i *ListenerInfo) UnmarshalBinary(b []byte) error {
	var w listenerWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*i = ListenerInfo(w.plainListener)
	i.Addr = w.Addr
	return nil
}

// UnmarshalJSON decodes what encoding/json made of a ListenerInfo, for example in the tree of a
// page.
func (i *ListenerInfo) UnmarshalJSON(b []byte) error { return i.UnmarshalBinary(b) }

// ListenerStats are the counts of a listener, as the listener process has them. Its fields:
//
//	Number   uint64                 // of the socket
//	Name     string                 // as asked for
//	Paused   bool                   // nothing is accepted
//	Counts   netactor.Counts        // of its connections before a worker has them
//	QueueAge time.Duration          // the longest wait of a connection that has no worker
//	HandOver netactor.HandOverTimes // of all workers
//	PerWorker int                   // Limits.PerWorker
//	Backlog  int                    // connections in the kernel's queue, not accepted yet; only of TCP, on Linux
//	Workers  []netactor.WorkerStats // of each worker
//	Gone     netactor.WorkerCounts  // sum over the workers that are gone
type ListenerStats = netactor.ListenerStats

// addr is the address of a socket of the master.
type addr struct{ network, address string }

func (a addr) Network() string { return a.network }

func (a addr) String() string { return a.address }

// UnmarshalText decodes what MarshalText returned.
func (a *addr) UnmarshalText(b []byte) error {
	a.network, a.address, _ = strings.Cut(string(b), ":")
	return nil
}

// MarshalText encodes the address for a Tree as JSON.
func (a addr) MarshalText() ([]byte, error) { return []byte(a.network + ":" + a.address), nil }
