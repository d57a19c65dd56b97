package netactor

// opening tells the listener process about a socket to accept on.
type opening struct {
	Name    string // for people: the listener's name or its address
	Network string `json:",omitzero"` // tcp, unix or unixpacket
	Pool    string `json:",omitzero"`
	Policy  Policy `json:",omitzero"`
	Limits  Limits `json:",omitzero"`
	Paused  bool   `json:",omitzero"`

	Peek        Peek   `json:",omitzero"`
	Functions   string `json:",omitzero"`
	Credentials bool   `json:",omitzero"` // of clients are to be told
	Foreign     bool   `json:",omitzero"` // others than this tree may have the socket
	Renew       bool   `json:",omitzero"` // it takes the place of one that was shut down
}
