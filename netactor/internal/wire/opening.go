package wire

import "github.com/coppice-go/coppice/netactor"

// Opening tells the listener process about a socket to accept on.
type Opening struct {
	Name    string          // for people: the listener's name or its address
	Network string          `json:",omitzero"` // tcp, unix or unixpacket
	Pool    string          `json:",omitzero"`
	Policy  netactor.Policy `json:",omitzero"`
	Limits  netactor.Limits `json:",omitzero"`
	Paused  bool            `json:",omitzero"`

	Peek        netactor.Peek `json:",omitzero"`
	Functions   string        `json:",omitzero"`
	Credentials bool          `json:",omitzero"` // of clients are to be told
	Foreign     bool          `json:",omitzero"` // others than this tree may have the socket
	Renew       bool          `json:",omitzero"` // it takes the place of one that was shut down
}
