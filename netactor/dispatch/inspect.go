package dispatch

import "github.com/coppice-go/coppice/netactor/internal/inspect"

func init() {
	inspect.SetHooks = func(dispatcher any, h inspect.DispatcherHooks) { dispatcher.(*Dispatcher).hooks = h }
	inspect.Listener = func(dispatcher any, number uint64) (inspect.AcceptorView, bool) {
		d := dispatcher.(*Dispatcher)
		d.mu.Lock()
		defer d.mu.Unlock()
		a := d.acceptors[number]
		if a == nil {
			return inspect.AcceptorView{}, false
		}
		return inspect.AcceptorView{
			Parked: a.parked, Load: a.listener.Load, Closed: a.closed, Idle: a.idle,
			Counts: func() any {
				d.mu.Lock()
				defer d.mu.Unlock()
				return a.listener.Counts
			},
			SetPeekLimit: func(n int) {
				d.mu.Lock()
				defer d.mu.Unlock()
				a.peeker.limit = n
			},
		}, true
	}
}
