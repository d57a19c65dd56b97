package supervisor

import "sync"

// Termination is the end of an [Instance], for a type of instance to embed: it implements
// Done, Reason and Leaked, and embeds [Base]. The zero value has not ended. The supervisor
// needs no goroutine to wait for it. It may be used concurrently and must not be copied.
type Termination struct {
	Base

	mu     sync.Mutex
	done   chan struct{}
	ended  bool
	reason Reason
	leaked <-chan struct{}
	notify []func()
}

// Terminate ends the instance: it closes Done. Reason and Leaked then return reason and
// leaked. Further calls do nothing.
func (t *Termination) Terminate(reason Reason, leaked <-chan struct{}) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	t.ended, t.reason, t.leaked = true, reason, leaked
	close(t.doneLocked())
	notify := t.notify
	t.notify = nil
	t.mu.Unlock()
	for _, f := range notify {
		f()
	}
}

// Done is closed by Terminate.
func (t *Termination) Done() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.doneLocked()
}

func (t *Termination) doneLocked() chan struct{} {
	if t.done == nil {
		t.done = make(chan struct{})
	}
	return t.done
}

// Reason returns the reason given to Terminate.
func (t *Termination) Reason() Reason {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reason
}

// Leaked returns the channel given to Terminate.
func (t *Termination) Leaked() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.leaked
}

func (t *Termination) termination() *Termination { return t }

// onDone calls f once when the instance has ended.
func (t *Termination) onDone(f func()) {
	t.mu.Lock()
	if !t.ended {
		t.notify = append(t.notify, f)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	f()
}
