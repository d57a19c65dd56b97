package socket

import (
	"slices"
	"sync"
	"testing"
)

// TestQueuesInOrder: the work for one path is done in order, one after another.
func TestQueuesInOrder(t *testing.T) {
	var got []int // without a lock: the race detector is to see
	end := make(chan struct{})
	answer := hang(t, "/a")
	for i := range 20 {
		Files.Do("/a", func() { got = append(got, i) })
	}
	Files.Do("/a", func() { close(end) })
	other := make(chan struct{})
	Files.Do("/b", func() { close(other) })
	<-other
	answer()
	<-end
	if len(got) != 20 || !slices.IsSorted(got) {
		t.Errorf("order %v", got)
	}
}

// hang makes a path's file system not answer until the returned function is called.
func hang(t *testing.T, path string) (answer func()) {
	held, end := make(chan struct{}), make(chan struct{})
	Files.Do(path, func() { close(held); <-end })
	<-held
	answer = sync.OnceFunc(func() { close(end) })
	t.Cleanup(answer)
	return answer
}
