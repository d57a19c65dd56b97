package trunk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// FuzzHello: a hello that is read is one that can be written, and reads as the same.
func FuzzHello(f *testing.F) {
	h := hello{1, 2, 3, 4, Host{"b", "boot", 5}, "shop", "a"}
	f.Add(h.bytes())
	f.Add(append(h.bytes(), "of a later version"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHello(b)
		if err != nil {
			return
		}
		if again := h.bytes(); !bytes.HasPrefix(b, again) {
			t.Errorf("%x was read as %+v and written as %x", b, h, again)
		}
	})
}

// FuzzData: a frame in pieces that is read is written as the same bytes, and makes no more of them
// than it says.
func FuzzData(f *testing.F) {
	for _, size := range []int{0, 9, 100, 101} {
		frame := &fdipc.Frame{Kind: 0x30, Lane: fdipc.Data, Flags: 7, Target: 1 << 40, Payload: make([]byte, size)}
		if size%2 == 0 {
			frame.Trace[3], frame.Lane = 1, fdipc.Control
		}
		f.Add(encode(frame, 40)) // short inputs: the fuzzer spends its time on making long ones shorter
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(b), readBuffer)
		var a assembly
		for read := 0; ; {
			h, body, err := readFrame(in)
			if err != nil || h.typ != typeData {
				return
			}
			p, err := parsePiece(h, body)
			if err != nil || p.cut || p.continues != (read > 0) {
				return
			}
			if read += headerSize + h.n; len(p.payload) > maxPiece {
				t.Fatalf("a piece of %d bytes", len(p.payload))
			}
			if !p.continues {
				p.frame.Payload = nil
			}
			done, err := a.add(p)
			if err != nil {
				return
			}
			if done {
				whole := a.frame
				if again := encode(&whole, maxPiece); len(whole.Payload) != a.total || read == len(again) && h.lane == 1 && !bytes.Equal(again, b[:read]) && !traceOfZeros(b) {
					t.Errorf("%x was written as %x", b[:read], again)
				}
				return
			}
			in.Discard(headerSize + h.n) //nolint:errcheck // it was peeked at
		}
	})
}

// encode returns a frame in pieces of at most that many bytes, on lane 1.
func encode(f *fdipc.Frame, most int) []byte {
	var b []byte
	for at := 0; ; {
		n := min(len(f.Payload)-at, most)
		b = appendPiece(b, 1, f, at, n)
		if at += n; at == len(f.Payload) {
			return b
		}
	}
}

func traceOfZeros(b []byte) bool { return b[5]&bitTrace != 0 }

// nowhere is a connection that takes all, and has nothing.
type nowhere struct{ net.Conn }

func (nowhere) Write(b []byte) (int, error)      { return len(b), nil }
func (nowhere) Close() error                     { return nil }
func (nowhere) SetDeadline(time.Time) error      { return nil }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }

// choosy is a sink that has no room for every third frame.
type choosy struct{ n int }

func (s *choosy) TrySend(*fdipc.Frame) error {
	if s.n++; s.n%3 == 0 {
		return fdipc.ErrFull
	}
	return nil
}

func (s *choosy) Send(ctx context.Context, f *fdipc.Frame) error {
	if f.Target%2 == 0 {
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

// FuzzTrunk: whatever a peer sends on a trunk, this side keeps its bounds, and nothing is left of
// it after the end.
func FuzzTrunk(f *testing.F) {
	open := appendFrame(nil, typeOpen, 0, 1, []byte("x"), nil)
	frame := &fdipc.Frame{Kind: 0x30, Lane: fdipc.Data, Payload: make([]byte, 100)}
	f.Add(append(open, encode(frame, 40)...))
	frame.Target, frame.Lane, frame.Payload = 1, fdipc.Control, frame.Payload[:10]
	f.Add(append(append(open, encode(frame, 40)...), appendFrame(nil, typeEnd, 0, 1, []byte{endReason}, nil)...))
	f.Add(appendCredit(append(open, appendFrame(nil, typeBeat, 0, 0, make([]byte, 8), nil)...), bitData, 1, 1000))
	f.Add(append(open, encode(&fdipc.Frame{Kind: 0x30, Payload: make([]byte, 100)}, 40)[:70]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &Mesh{cfg: Config{Silence: time.Second}}
		var lanes []*Lane
		m.cfg.Open = func(l *Lane, info []byte) {
			if lanes = append(lanes, l); len(lanes)%4 == 3 || l.Accept(info) != nil {
				return
			}
			l.Join(new(choosy), func(*LaneEnd) {})
		}
		w := newWatched(nowhere{}, time.Second)
		tr := newTrunk(m, nil, &handshaken{conn: w, watch: w, in: bufio.NewReaderSize(bytes.NewReader(b), readBuffer)})
		for {
			h, body, err := readFrame(tr.in)
			if err == nil {
				err = tr.handle(h, body, false)
			}
			tr.mu.Lock()
			if len(tr.known) > maxLanes+1 || tr.long > longBudget || tr.windows > windowBudget || tr.held > len(b) || tr.held < 0 || len(tr.ctl)+len(tr.data) > maxQueue+len(b) {
				t.Errorf("%d lanes, %d long, %d of windows, %d held, %d queued", len(tr.known), tr.long, tr.windows, tr.held, len(tr.ctl)+len(tr.data))
			}
			tr.mu.Unlock()
			if err != nil {
				break
			}
			tr.in.Discard(headerSize + h.n) //nolint:errcheck // it was peeked at
		}
		for _, l := range lanes {
			l.End(nil)
		}
		tr.pumps.Wait()
		if len(tr.known)+len(tr.lanes)+tr.long+tr.windows+tr.held+len(tr.reservations) != 0 {
			t.Errorf("after the end %d lanes, %d long, %d of windows, %d held, %d reservations", len(tr.known), tr.long, tr.windows, tr.held, len(tr.reservations))
		}
	})
}

// TestShares: long frames get shares of the trunk's memory in their order, a flow one at a time.
func TestShares(t *testing.T) {
	w := newWatched(nowhere{}, time.Second)
	tr := newTrunk(&Mesh{}, nil, &handshaken{conn: w, watch: w})
	newFlow := func(id uint32) *flow { return &tr.newLane(id).flows[fdipc.Data] }
	slow, other, third := newFlow(1), newFlow(3), newFlow(5)
	var rs []*reservation
	granted := func(want ...bool) {
		t.Helper()
		var got []bool
		for _, r := range rs {
			got = append(got, r.granted)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("granted %v, want %v", got, want)
		}
	}
	for _, r := range []struct {
		fl    *flow
		total int
	}{{slow, maxFrame}, {slow, 1}, {other, maxFrame}, {third, maxPiece}} {
		rs = append(rs, r.fl.reserveLocked(r.total))
	}
	granted(true, false, true, false)
	rs[1].pend = baseWindow / 2
	rs[2].releaseLocked()
	rs[2].releaseLocked()
	granted(true, false, true, true)
	rs[0].releaseLocked()
	granted(true, true, true, true)
	if n := binary.LittleEndian.Uint32(tr.ctl[headerSize:]); len(tr.ctl) != headerSize+4 || n < baseWindow/2 {
		t.Errorf("the pieces that waited gave %x", tr.ctl)
	}
	rs[1].releaseLocked()
	rs[3].releaseLocked()
	if tr.long != 0 || slow.large+other.large+third.large != 0 {
		t.Errorf("%d bytes are kept", tr.long)
	}
}
