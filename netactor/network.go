package netactor

// The networks are those of package net. What a reply calls the network of a socket is the family alone: tcp,
// udp, unix, unixpacket, unixgram.

// packet reports whether a network's sockets take datagrams, and not connections.
func packet(network string) bool {
	switch network {
	case "udp", "udp4", "udp6", "unixgram":
		return true
	}
	return false
}

// internet reports whether a network's addresses are host:port.
func internet(network string) bool {
	switch network {
	case "tcp", "tcp4", "tcp6", "udp", "udp4", "udp6":
		return true
	}
	return false
}

// local reports whether a network's addresses are paths, or abstract names.
func local(network string) bool {
	switch network {
	case "unix", "unixpacket", "unixgram":
		return true
	}
	return false
}
