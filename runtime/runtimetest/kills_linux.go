package runtimetest

import (
	"context"
	"sync/atomic"
	"syscall"
	"testing"
)

// RunOverKills runs l while it kills each of pids with −9. pids are workers of the program p, which
// has no further child but the listener process. They are killed one after the other, each between
// answers and after the previous one is replaced.
func (l Load) RunOverKills(t testing.TB, p *Program, pids []int) Counts {
	t.Helper()
	l.answered = new(atomic.Int64)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	end := make(chan Counts, 1)
	go func() { end <- l.Run(ctx) }() // ends with ctx
	all := len(Children(t, p.PID()))
	flows := func() {
		t.Helper()
		before := l.answered.Load()
		Eventually(t, "answers", func() bool { return l.answered.Load() >= before+int64(2*l.InFlight) })
	}
	for _, pid := range pids {
		flows()
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		Eventually(t, "a replacement", func() bool { return !Alive(pid) && len(Children(t, p.PID())) == all })
	}
	flows()
	stop()
	c := <-end
	t.Log(c)
	return c
}
