package wire

import "github.com/coppice-go/coppice/netactor"

// Opening is what the listener process needs to know of a socket to accept on.
type Opening struct {
	Name    string          // for logs and counts: the listener's name or its address
	Network string          `json:",omitzero"` // tcp, unix or unixpacket
	Pool    string          `json:",omitzero"`
	Policy  netactor.Policy `json:",omitzero"`
	Limits  netactor.Limits `json:",omitzero"`
	Paused  bool            `json:",omitzero"`
	Refuses bool            `json:",omitzero"` // reset each connection

	Peek        netactor.Peek `json:",omitzero"`
	Functions   string        `json:",omitzero"`
	Credentials bool          `json:",omitzero"` // get the credentials of each client
	Foreign     bool          `json:",omitzero"` // processes outside this tree may have the socket
	Renew       bool          `json:",omitzero"` // the socket replaces one that was shut down
}
