package coppice

import (
	"fmt"
	"os"
	"syscall"
)

// toJournal reports whether standard error, or standard output, is the journal's stream.
// JOURNAL_STREAM names the stream by device and inode, because a program inherits the variable also
// if its output goes elsewhere (systemd.exec(5)).
func toJournal() bool {
	stream := os.Getenv("JOURNAL_STREAM")
	for fd := 1; stream != "" && fd <= 2; fd++ {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil && fmt.Sprintf("%d:%d", st.Dev, st.Ino) == stream {
			return true
		}
	}
	return false
}
