// Package trunk joins hosts: one connection to each other host, a trunk, which many lanes share. It
// knows nothing of actors; what it carries are frames of package fdipc, unread, and streams of
// bytes.
//
//	m, err := trunk.New(trunk.Config{Cluster: "shop", Self: self, Files: files, Open: open})
//	go m.Serve(listener)
//	m.SetPeers(map[string]string{"b": "10.0.0.2:7400"})
//	lane, reply, err := m.Trunk("b").Open(ctx, info)
//	lane.Join(conn, ended)      // what comes goes to conn, an fdipc.Conn
//	err = lane.Send(ctx, frame) // from conn's Handler
//
// At the other host
//
//	open := func(l *trunk.Lane, info []byte) { go func() { …; l.Accept(reply); l.Join(conn, ended) }() }
//
// # What a lane promises
//
// Frames of a lane and of one of its two flows, [fdipc.Control] and [fdipc.Data], reach the sink in
// the order in which they were sent; what arrives is a prefix of what was sent, also when the trunk
// is lost. Nothing is sent twice. A lane belongs to one trunk: it ends with it.
//
// # What a peer cannot do
//
// A peer that is in may send anything. What it has this side hold is bounded: a window for each
// flow of a lane, and the budgets of a trunk for windows and for long frames; beyond them, and for
// what does not parse, the trunk ends with [ErrProtocol]. A sink that takes nothing stops its own
// lane only. A peer that neither sends nor takes anything for Config.Silence has lost its trunk.
//
// The wire is specified in docs/protocol.md.
package trunk
