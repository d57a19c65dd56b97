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

	// Stats are the listener process's counts, of each worker too, and StatsAt when it told them: at
	// most a second before they changed last, where there are few workers. Nil with
	// Shared and ReusePort, whose connections nobody counts, and before the first.
	Stats    *ListenerStats `json:"stats,omitempty"`
	StatsAt  time.Time      `json:"stats_at,omitzero"`
	Fairness float64        `json:"fairness,omitempty"` // Jain's index of the workers' shares: 1 is even

	owners []string // paths in the tree
}

// listenerWire is a ListenerInfo on its way to a worker: an interface cannot be
// read without knowing what it holds.
type listenerWire struct {
	plainListener
	Addr addr `json:"addr"`
}

type plainListener ListenerInfo

// MarshalBinary is for the tree's way to a worker.
func (i ListenerInfo) MarshalBinary() ([]byte, error) {
	w := listenerWire{plainListener: plainListener(i)}
	if i.Addr != nil {
		w.Addr = addr{i.Addr.Network(), i.Addr.String()}
	}
	return json.Marshal(w)
}

// UnmarshalBinary reads what MarshalBinary wrote.
func (i *ListenerInfo) UnmarshalBinary(b []byte) error {
	var w listenerWire
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*i = ListenerInfo(w.plainListener)
	i.Addr = w.Addr
	return nil
}

// UnmarshalJSON reads what encoding/json has made of one, the tree of a page for
// instance.
func (i *ListenerInfo) UnmarshalJSON(b []byte) error { return i.UnmarshalBinary(b) }

// ListenerStats are the counts of a listener. See netactor.
type ListenerStats = netactor.ListenerStats

// addr is the address of a socket of the master's.
type addr struct{ network, address string }

func (a addr) Network() string { return a.network }

func (a addr) String() string { return a.address }

// UnmarshalText reads what MarshalText wrote.
func (a *addr) UnmarshalText(b []byte) error {
	a.network, a.address, _ = strings.Cut(string(b), ":")
	return nil
}

// MarshalText is for a Tree as JSON.
func (a addr) MarshalText() ([]byte, error) { return []byte(a.network + ":" + a.address), nil }
