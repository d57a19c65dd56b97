package output

import (
	"fmt"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/queue"
)

const (
	maxQueued = 1 << 20     // bytes of lines that wait for the writer
	lineCost  = 128         // bytes that a line counts besides its text
	patience  = time.Second // how long a process's output waits for room
)

// NewQueue returns a queue between the processes and write, which may block. A slow write slows the
// processes down, by their pipes. A stuck write costs lines, which are counted. Neither holds up
// the master, whose name is in the line that stands in the place of lost lines. A line is lost if
// write returns an error for it. maxLine is the length of the longest line.
func NewQueue(master string, maxLine int, write func(Line) error) *queue.Queue[Line] {
	return queue.New(queue.Config[Line]{
		Take: write, Max: max(maxQueued, 4*(lineCost+maxLine)), Patience: patience,
		Cost: func(l Line) int { return lineCost + len(l.Text) },
		Lost: func(n uint64) Line {
			return Line{
				Time: time.Now(), Name: master, PID: os.Getpid(), Stream: Stderr,
				Text: fmt.Sprintf("coppice: %d lines of output lost: they were not taken in time", n),
			}
		},
	})
}
