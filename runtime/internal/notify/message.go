package notify

import (
	"strconv"
	"strings"
	"time"
)

// A Message is the content of one datagram, as far as this package understands it. It skips other
// assignments, as sd_notify(3) requires.
type Message struct {
	Ready     bool          // READY=1
	Reloading bool          // RELOADING=1
	Stopping  bool          // STOPPING=1
	Watchdog  bool          // WATCHDOG=1
	Status    string        // STATUS=…, up to 256 bytes; "" = not sent
	Extend    time.Duration // EXTEND_TIMEOUT_USEC=…, from now on; 0 = not sent
}

const maxStatus = 256

// Parse reads a datagram: lines of the form KEY=value. Lines that make no sense are skipped.
func Parse(datagram string) Message {
	var m Message
	for line := range strings.SplitSeq(datagram, "\n") {
		switch key, value, _ := strings.Cut(line, "="); key {
		case "READY":
			m.Ready = m.Ready || value == "1"
		case "RELOADING":
			m.Reloading = m.Reloading || value == "1"
		case "STOPPING":
			m.Stopping = m.Stopping || value == "1"
		case "WATCHDOG":
			m.Watchdog = m.Watchdog || value == "1"
		case "STATUS":
			m.Status = strings.ToValidUTF8(value[:min(len(value), maxStatus)], "�")
		case "EXTEND_TIMEOUT_USEC":
			if us, err := strconv.ParseUint(value, 10, 63); err == nil && us < uint64(time.Duration(1<<63-1)/time.Microsecond) {
				m.Extend = time.Duration(us) * time.Microsecond
			}
		}
	}
	return m
}
