package trunk

import (
	"context"
	"net"
	"sync"

	"github.com/coppice-go/coppice/fdipc"
)

// streamKind is the kind of the frames of a stream; their payload is its bytes.
const streamKind = firstKind

// OpenStream opens a stream of bytes to what the peer calls service, and waits as Open does. Its
// Close ends both directions, after what was written before. A Write that has returned may still be
// on its way.
func (t *Trunk) OpenStream(ctx context.Context, service string) (net.Conn, error) {
	l, _, err := t.open(ctx, bitStream, []byte(service))
	if err != nil {
		return nil, err
	}
	return l.stream(), nil
}

func (t *Trunk) acceptStream(l *Lane, service string) {
	if l.Accept(nil) == nil {
		c := l.stream()
		t.mesh.wg.Go(func() { t.mesh.cfg.Stream(t, service, c) })
	}
}

// stream makes a connection of a lane that carries the bytes of one.
func (l *Lane) stream() net.Conn {
	t := l.trunk
	user, ours := net.Pipe()
	l.Join(&streamSink{conn: ours}, func(*LaneEnd) {
		ours.Close()
		l.End(nil)
	})
	// It ends when either end of the pipe is closed, which the lane's end brings about.
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.why != nil { // and nobody may wait for this goroutine
		ours.Close()
		return user
	}
	t.mesh.wg.Go(func() {
		b := make([]byte, maxPiece)
		for {
			n, err := ours.Read(b)
			if err == nil {
				err = l.Send(l.ctx, &fdipc.Frame{Kind: streamKind, Lane: fdipc.Data, Payload: b[:n]})
			}
			if err != nil {
				break
			}
		}
		ours.Close()
		l.End(nil)
	})
	return user
}

// streamSink writes what comes into a pipe, which takes it when it is read.
type streamSink struct {
	conn net.Conn
	once sync.Once
}

// TrySend returns ErrFull: a pipe takes nothing before it is read.
func (s *streamSink) TrySend(*fdipc.Frame) error { return fdipc.ErrFull }

// Send writes to the pipe. The end of ctx closes it.
func (s *streamSink) Send(ctx context.Context, f *fdipc.Frame) error {
	s.once.Do(func() { context.AfterFunc(ctx, func() { s.conn.Close() }) })
	_, err := s.conn.Write(f.Payload)
	return err
}
