package fdipc

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// seedPackets are packets as our sender makes them.
func seedPackets() [][]byte {
	c := &Conn{}
	l := newLane(c, Data)
	hs := []*Handle{HandleFD(0).Named("name"), HandleFD(0)}
	hs[1].Trace[3] = 1
	hs[1].SetAccepted(Accepted{RemoteName: "@x", Local: netip.MustParseAddrPort("[fe80::1%3]:80"), Credentials: &Credentials{UID: 1}})
	l.putLocked(&Frame{Kind: 0x40, Flags: 1, Target: 2, Trace: TraceContext{1}, Payload: []byte("payload"), Handles: hs}, describe(l, hs, offerID{1, 1}, offerID{2, 1}))
	l.putLocked(&Frame{Kind: 0x41}, nil)
	l.putLocked(&Frame{Kind: 0x42, Payload: make([]byte, 2*sendPacket)}, nil)
	data := l.queue
	l = newLane(c, Control)
	l.putLocked(&Frame{Kind: 0x43, Payload: []byte("control")}, nil)
	l.putLocked(&Frame{Kind: kindGoodbye}, nil)
	l.putLocked(&Frame{Kind: kindWake}, nil)
	l.putLocked(&Frame{Kind: kindPing, Target: 7}, nil)
	var all [][]byte
	for _, p := range append(data, l.queue...) {
		all = append(all, bytes.Clone(p.buf))
	}
	return all
}

// FuzzPacket: any bytes decode to pieces that encode to the same bytes, or to an error.
func FuzzPacket(f *testing.F) {
	for _, b := range seedPackets() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			var p piece
			rest, err := decodePiece(b, &p)
			if err != nil {
				return
			}
			out := make([]byte, pieceHead, len(b))
			putPieceHeader(out, p.pieceHeader)
			out = append(out, p.trace...)
			canonical := true
			for es, i := p.entries, 0; i < p.handles; i++ {
				var e handleEntry
				es = decodeEntry(es, &e)
				n := len(out)
				out = appendEntry(out, &e)
				// A trace context of zeros is legal, and left out by our encoder.
				canonical = canonical && len(out)-n == e.size() && !(e.trace == TraceContext{} && p.entries[9]&entryTrace != 0)
				if i == p.handles-1 && len(es) != 0 {
					t.Fatalf("%d bytes behind the entries", len(es))
				}
			}
			out = append(out, p.payload...)
			if canonical && len(out) == len(b)-len(rest) && !bytes.Equal(out, b[:len(out)]) {
				t.Fatalf("%x became %x", b[:len(out)], out)
			}
			b = rest
		}
	})
}

// Packets mutated at random from good ones: the decoder's check of
// FuzzPacket without the fuzzer's bookkeeping, so that millions are quick: 20 with COPPICE_SOAK=1.
func TestPacketMutations(t *testing.T) {
	rounds := 200_000
	if os.Getenv("COPPICE_SOAK") != "" {
		rounds = 20_000_000
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	seeds := seedPackets()
	var buf []byte
	good := 0
	for range rounds {
		buf = append(buf[:0], seeds[rnd.IntN(len(seeds))]...)
		buf = buf[:min(len(buf), 256)]
		for range 1 + rnd.IntN(4) {
			switch i := rnd.IntN(len(buf)); rnd.IntN(3) {
			case 0:
				buf[i] = byte(rnd.Uint32())
			case 1:
				buf[i] ^= 1 << rnd.IntN(8)
			case 2:
				buf = buf[:i+1]
			}
		}
		for b := buf; len(b) > 0; {
			var p piece
			rest, err := decodePiece(b, &p)
			if err != nil {
				break
			}
			if len(rest) >= len(b) || p.n != len(p.payload) {
				t.Fatalf("%x: %d of %d bytes left, payload %d of %d", b, len(rest), len(b), len(p.payload), p.n)
			}
			es := p.entries
			for range p.handles {
				var e handleEntry
				es = decodeEntry(es, &e)
			}
			if len(es) != 0 {
				t.Fatalf("%x: %d bytes behind the entries", b, len(es))
			}
			b = rest
			good++
		}
	}
	t.Logf("%d packets, %d good pieces in them", rounds, good)
}

// FuzzHello: the payload of a hello.
func FuzzHello(f *testing.F) {
	f.Add(hello{1, 1, featAll, featAll, 1 << 20, 100}.append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHello(b)
		if err == nil && !bytes.Equal(h.append(nil), b[:helloLen]) {
			t.Fatalf("%x became %x", b, h.append(nil))
		}
	})
}

// FuzzConn: a whole Conn against a peer that sends anything, descriptors included. The bytes are a
// script: a length, a number of descriptors and a bit for the data lane, so many bytes, and again.
// The first two descriptors of a packet are a claim table and an end of the data lane. The Conn
// must end, whatever comes, and with it everything it opened.
func FuzzConn(f *testing.F) {
	const onData = 0x80
	script := func(fds byte, packets ...[]byte) (s []byte) {
		for _, b := range packets {
			b = b[:min(len(b), 0xffff)]
			to := fds
			if b[5]&pieceData != 0 {
				to |= onData
			}
			s = append(s, byte(len(b)), byte(len(b)>>8), to)
			s = append(s, b...)
		}
		return s
	}
	hi := HelloWith(uint32(featAll), uint32(featAttached))
	greeted := func(fds byte, packets ...[]byte) []byte { return append(script(2, hi), script(fds, packets...)...) }
	f.Add(greeted(0, seedPackets()...))
	f.Add(script(0, HelloWith(uint32(featAll), 0)))
	for _, b := range seedPackets() {
		f.Add(greeted(2, b))
		f.Add(greeted(0, b, b))
		f.Add(script(1, b))
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	before := countFDs(f)
	f.Fuzz(func(t *testing.T, s []byte) {
		l, r, err := Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		c, err := New(l, Config{MaxFrame: 1 << 20, Credits: 8, ClaimTimeout: -1, Handler: func(_ *Conn, f *Frame) {
			for i, h := range f.Handles {
				if i%2 == 0 {
					_ = h.Claim()
				}
				h.Close()
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		rc, err := r.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		table, err := ClaimTable()
		if err != nil {
			t.Fatal(err)
		}
		lane, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = rc.Control(func(fd uintptr) {
			for len(s) >= 3 {
				n, k, to := int(s[0])|int(s[1])<<8, int(s[2]&^onData)%5, int(fd)
				if s[2]&onData != 0 {
					to = lane[0]
				}
				s = s[3:]
				n = min(n, len(s))
				fds := []int{table, lane[1], int(null.Fd()), int(null.Fd())}[:k]
				if n > 0 {
					_ = unix.Sendmsg(to, s[:n], unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
				}
				s = s[n:]
			}
		})
		for _, fd := range []int{table, lane[0], lane[1]} {
			unix.Close(fd)
		}
		r.Close()
		<-c.Done()
		if c.Err() == nil || c.Err() == io.EOF && len(s) > 1<<20 {
			t.Fatal(c.Err())
		}
		if n := countFDs(t); n > before+20 { // other workers' Conns are in other processes; the poller's come with the first
			t.Fatalf("%d descriptors open, were %d", n, before)
		}
	})
}

func countFDs(t testing.TB) int {
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
