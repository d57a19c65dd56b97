package registry

import (
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/internal/socket"
)

func init() {
	inspect.QueuedFiles = func(path string) int { return socket.Files.WaitingFor(path) }
	inspect.Leave = func(table any) {
		t := table.(*Table)
		t.mu.Lock()
		for _, s := range t.sockets {
			s.Release()
		}
		clear(t.sockets)
		t.todo = nil
		t.mu.Unlock()
		_ = t.Close()
	}
	inspect.LookAt = func(table any, look func(inspect.TableView)) {
		t := table.(*Table)
		t.mu.Lock()
		defer t.mu.Unlock()
		v := inspect.TableView{Busy: t.busy}
		if !t.busy { // else these are its goroutine's
			v.Repairs, v.Watched = len(t.repairs), t.watcher != nil
			for key, s := range t.sockets {
				v.Sockets = append(v.Sockets, inspect.SocketView{
					Number: key.number, Index: key.index, FD: s.Descriptor(), Reopening: s.reopening, Waiting: len(s.waiting), Listening: s.Listening,
				})
			}
		}
		for _, waiting := range t.state.awaitingName {
			v.Awaiting += len(waiting)
		}
		for _, s := range t.state.sockets {
			if s.phase == pending {
				v.Pending++
			}
		}
		look(v)
	}
}
