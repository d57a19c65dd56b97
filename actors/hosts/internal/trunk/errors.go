package trunk

import "errors"

var (
	// ErrLost: the trunk has ended. The text says why: silence, the peer's goaway, ErrProtocol.
	ErrLost = errors.New("trunk lost")
	// ErrNoTrunk: there is no trunk to that host now.
	ErrNoTrunk = errors.New("no trunk to the host")
	// ErrEnded: the lane has ended.
	ErrEnded = errors.New("lane ended")
	// ErrProtocol: the peer broke the rules of docs/protocol.md.
	ErrProtocol = errors.New("trunk protocol error")
	// ErrRefused: the two sides do not become a trunk. The text says why: another cluster, another
	// name, a name that is taken, no common version.
	ErrRefused = errors.New("host refused")
	// ErrClosed: this side has closed the Mesh.
	ErrClosed = errors.New("mesh closed")
	// ErrConfig: a field of a Config, or a file of a certificate, is wrong. The text names it.
	ErrConfig = errors.New("configuration of trunks")
)
