package autoscale

import "slices"

// maxMarks bounds the marks of a Backlog.
const maxMarks = 32

// Backlog tells how long the first connection in a kernel's queue of a listening socket has waited
// at least. The kernel tells the length alone, but the queue is first in, first out: a connection
// that was in it at a time is still there while fewer were accepted since than there were then. The
// zero value is ready for use.
type Backlog struct{ marks []mark }

// mark is the end of the queue at a time: the number of connections accepted and in it.
type mark struct {
	at  Time
	end uint64
}

// Age takes how many connections were accepted so far, and how many are in the queue.
func (b *Backlog) Age(now Time, accepted uint64, length int) Time {
	end := accepted + uint64(length)
	gone := slices.IndexFunc(b.marks, func(m mark) bool { return m.end > accepted && m.end <= end })
	if gone < 0 {
		gone = len(b.marks)
	}
	b.marks = slices.Delete(b.marks, 0, gone)
	if n := len(b.marks); length > 0 && (n == 0 || b.marks[n-1].end < end) {
		if n == maxMarks {
			b.marks = slices.Delete(b.marks, n-1, n)
		}
		b.marks = append(b.marks, mark{now, end})
	}
	if len(b.marks) == 0 {
		return 0
	}
	return now - b.marks[0].at
}
