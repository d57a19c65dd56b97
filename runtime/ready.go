package coppice

import (
	"fmt"
	"net"
	"regexp"
	"time"
)

// Ready is the sign by which a [Process], or a program of a [Pool], shows that it does its work: at
// most one of the fields below. The zero value requires no sign.
type Ready struct {
	// Notify waits for READY=1 on the socket named in NOTIFY_SOCKET, which a service of systemd
	// sends (sd_notify(3)), from any process of the group. When the start fails, its error contains
	// STATUS=. EXTEND_TIMEOUT_USEC= moves the deadline of a Process.
	Notify bool

	// Network and Address wait until a connection there is accepted: tcp, tcp4, tcp6 or unix, as
	// for net.Dial. The connection is closed at once.
	Network string
	Address string

	// Line waits for a line of its output that matches the regular expression (package regexp).
	Line string

	// Alive waits until it has run for this long.
	Alive time.Duration
}

func (r Ready) validate(bad reportInvalid, path string) {
	var ways []string
	for _, way := range []struct {
		field string
		set   bool
	}{{"Notify", r.Notify}, {"Address", r.Network != "" || r.Address != ""}, {"Line", r.Line != ""}, {"Alive", r.Alive != 0}} {
		if way.set {
			ways = append(ways, way.field)
		}
	}
	if len(ways) > 1 {
		bad(path, "Ready", ways, "is more than one condition")
	}
	if r.Alive < 0 {
		bad(path, "Ready.Alive", r.Alive, "is negative")
	}
	if _, err := regexp.Compile(r.Line); err != nil {
		bad(path, "Ready.Line", fmt.Sprintf("%q", r.Line), err.Error())
	}
	switch {
	case r.Network == "" && r.Address == "":
	case r.Network == "unix":
		if r.Address == "" {
			bad(path, "Ready.Address", `""`, "a Unix socket needs a path")
		}
	case r.Network == "tcp", r.Network == "tcp4", r.Network == "tcp6":
		if _, port, err := net.SplitHostPort(r.Address); err != nil {
			bad(path, "Ready.Address", fmt.Sprintf("%q", r.Address), err.Error())
		} else if port == "" || port == "0" {
			bad(path, "Ready.Address", fmt.Sprintf("%q", r.Address), "names no port")
		}
	default:
		bad(path, "Ready.Network", fmt.Sprintf("%q", r.Network), "is none of tcp, tcp4, tcp6, unix")
	}
}

// String returns what is waited for.
func (r Ready) String() string {
	switch {
	case r.Notify:
		return "READY=1 on its NOTIFY_SOCKET"
	case r.Network != "":
		return fmt.Sprintf("a connection to %s %s", r.Network, r.Address)
	case r.Line != "":
		return fmt.Sprintf("a line like %q", r.Line)
	case r.Alive > 0:
		return fmt.Sprintf("%v of life", r.Alive)
	}
	return "nothing"
}
