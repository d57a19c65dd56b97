package registry

import (
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// maxTries bounds the tries of an effect that a peer waits for, to about 10 s.
const maxTries = 14

// retryLater performs a failed effect again after a pause, if the master lacked resources for it.
// It reports whether it does. patient is the maximum number of tries; 0 means no maximum.
func (t *Table) retryLater(e effect, err error, patient int) bool {
	if !faults.IsShortage(err) || patient > 0 && e.tries >= patient {
		return false
	}
	t.shortage.Begin(t.cfg.Logger, "the master is short of what a socket takes: it is tried again", "err", err)
	pause := faults.PauseAfter(e.tries, faults.FirstPause)
	e.tries++
	t.retries++
	time.AfterFunc(pause, func() { // does nothing after Close
		t.step(func() []effect {
			if t.closed {
				return nil
			}
			return []effect{e}
		})
	})
	return true
}

// reopenable reports whether the master opens the socket of a doOpen itself, and so can try again.
func (e effect) reopenable() bool { return e.socket == nil && (e.req.FD != 0 || e.req.Network != "") }

// retryEnded ends the shortage that retryLater began, if no other effect waits for a retry.
func (t *Table) retryEnded() {
	if t.retries == 0 {
		t.shortage.End(t.cfg.Logger, "the master has what sockets take again")
	}
}

// HandlesLost handles a worker's frame whose handles did not arrive, for fdipc.Config.NoFiles. It
// returns false if it does not handle the kind.
func (t *Table) HandlesLost(from netactor.Worker, f *fdipc.Frame) bool {
	if f.Kind != wire.KindShare {
		return false
	}
	p := pendingRequest{worker: from.ID, seq: f.Target}
	t.step(func() []effect {
		return []effect{{kind: doReply, request: p, reply: wire.ListenReply{Errno: int(syscall.EMFILE), Call: "recvmsg"}}}
	})
	return true
}
