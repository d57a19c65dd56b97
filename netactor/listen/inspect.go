package listen

import "github.com/coppice-go/coppice/netactor/internal/inspect"

func init() {
	inspect.Paused = func(listeners any, number uint64) bool {
		l := listeners.(*Listeners).directListener(number)
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.paused
	}
	inspect.Ordinals = func(listeners any) int {
		ls := listeners.(*Listeners)
		ls.mu.Lock()
		defer ls.mu.Unlock()
		return len(ls.ordinals)
	}
	inspect.Hide = func(listeners any, number uint64) (restore func()) {
		ls := listeners.(*Listeners)
		set := func(s openSocket) openSocket {
			ls.mu.Lock()
			defer ls.mu.Unlock()
			old := ls.byNumber[number]
			delete(ls.byNumber, number)
			if s != nil {
				ls.byNumber[number] = s
			}
			return old
		}
		old := set(nil)
		return func() { set(old) }
	}
}
