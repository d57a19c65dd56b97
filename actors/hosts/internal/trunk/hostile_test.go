package trunk_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/hoststest"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
	"github.com/coppice-go/coppice/fdipc"
)

// frame is a trunk frame as docs/protocol.md has it.
func frame(typ, bits byte, lane uint32, body ...byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(body)))
	b = append(b, typ, bits, 0, 0)
	b = binary.LittleEndian.AppendUint32(b, lane)
	return append(b, body...)
}

// greeting is the fields of a hello of host b, whose boot is lower than a's.
type greeting struct {
	oldest, newest    uint16
	lost, incarnation uint64
	names             []string // cluster, host, boot, the host that is meant
}

func newGreeting() greeting { return greeting{1, 1, 0, 1, []string{"shop", "b", "0boot", "a"}} }

func (g greeting) frame() []byte {
	b := []byte("coppice\x00")
	b = binary.LittleEndian.AppendUint16(b, g.oldest)
	b = binary.LittleEndian.AppendUint16(b, g.newest)
	b = binary.LittleEndian.AppendUint32(b, 0)
	b = binary.LittleEndian.AppendUint64(b, g.lost)
	b = binary.LittleEndian.AppendUint64(b, g.incarnation)
	for _, s := range g.names {
		b = append(append(b, byte(len(s))), s...)
	}
	return frame(1, 0, 0, b...)
}

// victim starts host a, which has a peer b that does not listen.
func victim(t *testing.T) (*hoststest.Net, *host) {
	n := hoststest.NewNet(1)
	a := start(t, n, "a", nil)
	a.SetPeers(peers("a", "b"))
	<-a.failed // its own dial
	return n, a
}

// intrude makes a trunk to a by hand, as b.
func intrude(t *testing.T, n *hoststest.Net, a *host) (net.Conn, *trunk.Trunk) {
	t.Helper()
	c, err := n.Dial(t.Context(), "b", "a")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	write(t, c, newGreeting().frame())
	if h, _ := readFrame(t, c); h[4] != 1 {
		t.Fatalf("answered with type %d", h[4])
	}
	write(t, c, frame(2, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0))
	return c, <-a.up
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func readFrame(t *testing.T, c net.Conn) (header, body []byte) {
	t.Helper()
	header = make([]byte, 12)
	if _, err := io.ReadFull(c, header); err != nil {
		t.Fatal(err)
	}
	body = make([]byte, binary.LittleEndian.Uint32(header))
	if _, err := io.ReadFull(c, body); err != nil {
		t.Fatal(err)
	}
	return header, body
}

// TestHostile: whatever breaks the rules ends the trunk with ErrProtocol, and a goaway that says
// why.
func TestHostile(t *testing.T) {
	head := []byte{0x30, 0, 1, 0, 0, 0, 0, 0, 0, 0} // of a frame: kind, flags, target
	data := func(bits byte, more ...byte) []byte { return frame(7, bits, 1, append(head[:10:10], more...)...) }
	open := frame(5, 0, 1) // the side that dialled has odd lanes
	piece := data(0x0a, append([]byte{0, 0x10, 0, 0}, make([]byte, 100)...)...)
	full := make([]byte, 0, 1<<17)
	for range 70 {
		full = append(full, data(8, make([]byte, 1000)...)...)
	}
	for name, row := range map[string]struct {
		send []byte
		want string
	}{
		"an unknown type":                {frame(77, 0, 0), "type 77"},
		"a long frame":                   {[]byte{0xff, 0xff, 0xff, 0xff, 7, 0, 0, 0, 1, 0, 0, 0}, "4294967295 bytes of type 7"},
		"reserved bytes":                 {[]byte{0, 0, 0, 0, 5, 0, 1, 0, 1, 0, 0, 0}, "of type 5"},
		"unknown bits":                   {frame(5, 0x80, 1), "of type 5"},
		"data of no lane":                {frame(7, 8, 0, head...), "type 7 for lane 0"},
		"a beat of a lane":               {frame(4, 0, 1, make([]byte, 8)...), "type 4 for lane 1"},
		"a short beat":                   {frame(4, 0, 0, 1), "a beat of 1 bytes"},
		"a second hello":                 {newGreeting().frame(), "out of place"},
		"a second go":                    {frame(2, 0, 0, make([]byte, 8)...), "out of place"},
		"an empty goaway":                {frame(3, 0, 0), "an empty goaway"},
		"data of a lane that is none":    {data(8), "lane 1 was not opened"},
		"data of our lane that is none":  {frame(7, 8, 2, head...), "lane 2 was not opened"},
		"a lane of ours":                 {frame(5, 0, 2), "lane 2 is not the next"},
		"a lane twice":                   {append(open, open...), "lane 1 is not the next"},
		"its own lane opened":            {append(open, frame(6, 0, 1)...), "lane 1 is open"},
		"an empty end":                   {append(open, frame(9, 0, 1)...), "an empty end"},
		"a transport's kind":             {append(open, frame(7, 8, 1, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0)...), "kind 5"},
		"no head":                        {append(open, frame(7, 8, 1, 0x30)...), "no head"},
		"no trace context":               {append(open, data(9, 1)...), "no trace context"},
		"no length":                      {append(open, data(0x0a, 1)...), "no length"},
		"a long control frame":           {append(open, data(2, 0, 0, 0, 5, 1)...), "1 bytes of a frame of 83886080"},
		"a frame that is whole and more": {append(open, data(0x0a, 1, 0, 0, 0, 1)...), "1 bytes of a frame of 1"},
		"more than a piece":              {append(open, data(8, make([]byte, 32<<10+1)...)...), "32769 bytes in a piece"},
		"a piece of nothing":             {append(open, frame(7, 0x0c, 1, 1)...), "out of its order"},
		"a cut of nothing":               {append(open, frame(7, 0x1c, 1)...), "out of its order"},
		"a cut with bytes":               {append(open, frame(7, 0x1c, 1, 1)...), "bits 0x1c of a piece"},
		"a cut that begins":              {append(open, data(0x18)...), "no head"},
		"a frame in a frame":             {append(append(open, piece...), data(8)...), "out of its order"},
		"a frame that ends early":        {append(append(open, piece...), frame(7, 0x0c, 1, 1)...), "101 bytes of a frame of 4096"},
		"an empty piece":                 {append(append(open, piece...), frame(7, 0x0e, 1)...), "0 bytes in a piece"},
		"more than its credit":           {append(open, full...), "has no credit"},
		"a short credit":                 {append(open, frame(8, 0, 1, 1)...), "a credit of 1 bytes"},
		"a credit beyond all":            {append(open, frame(8, 0, 1, 0, 0, 0, 0x40)...), "a credit of 1073741824"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n, a := victim(t)
				c, _ := intrude(t, n, a)
				go c.Write(row.send) //nolint:errcheck // the other side may close before all is written
				err := (<-a.down).err
				if !errors.Is(err, trunk.ErrProtocol) || !errors.Is(err, trunk.ErrLost) || !strings.Contains(err.Error(), row.want) {
					t.Errorf("%v, want %s", err, row.want)
				}
				for {
					if h, body := readFrame(t, c); h[4] == 3 {
						if body[0] != 3 || !strings.Contains(string(body), row.want) {
							t.Errorf("goaway %d %q", body[0], body[1:])
						}
						break
					}
				}
			})
		})
	}
}

// TestDataBeforeAccept: the opener of a lane that was not accepted must not send on it.
func TestDataBeforeAccept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a := start(t, n, "a", func(c *trunk.Config) { c.Open = func(*trunk.Lane, []byte) {} })
		a.SetPeers(peers("a", "b"))
		c, _ := intrude(t, n, a)
		write(t, c, append(frame(5, 0, 1), frame(7, 8, 1, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0)...))
		if err := (<-a.down).err; !errors.Is(err, trunk.ErrProtocol) || !strings.Contains(err.Error(), "before lane 1 was accepted") {
			t.Error(err)
		}
	})
}

// TestPeerReadsNothing: a peer that has this side say much and reads none of it loses the trunk,
// within the silence or when too much is queued; what is queued is bounded.
func TestPeerReadsNothing(t *testing.T) {
	for name, send := range map[string]func(i uint32) []byte{
		"beats": func(uint32) []byte { return frame(4, 0, 0, make([]byte, 8)...) },
		"opens": func(i uint32) []byte { return append(frame(5, 0, 2*i+1), frame(9, 0, 2*i+1, 0)...) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n, a := victim(t)
				c, tr := intrude(t, n, a)
				most := 0
				for i := uint32(0); ; i += 1000 {
					var b []byte
					for k := range uint32(1000) {
						b = append(b, send(i+k)...)
					}
					if _, err := c.Write(b); err != nil {
						break
					}
					most = max(most, tr.Stats().Queued)
					<-time.After(time.Millisecond)
				}
				if err := (<-a.down).err; !errors.Is(err, trunk.ErrLost) || most > 3<<19 {
					t.Errorf("%v; at most %d bytes were queued", err, most)
				}
			})
		})
	}
}

// TestTooManyLanes: a peer gets 1,024 lanes that are neither taken nor ended, and no more; when
// they end, others can be opened.
func TestTooManyLanes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		var lanes []*trunk.Lane
		a := start(t, n, "a", func(c *trunk.Config) { c.Open = func(l *trunk.Lane, _ []byte) { lanes = append(lanes, l) } })
		a.SetPeers(peers("a", "b"))
		c, _ := intrude(t, n, a)
		openAndEnd := func(i uint32) { write(t, c, append(frame(5, 0, 2*i+1), frame(9, 0, 2*i+1, 0)...)) }
		for i := range uint32(1025) {
			openAndEnd(i)
		}
		for {
			if h, body := readFrame(t, c); h[4] == 9 {
				if id := binary.LittleEndian.Uint32(h[8:]); id != 2049 || body[0] != 1 || string(body[1:]) != "too many lanes" {
					t.Errorf("lane %d: %d %q", id, body[0], body[1:])
				}
				break
			}
		}
		if len(lanes) != 1024 {
			t.Fatalf("%d lanes", len(lanes))
		}
		lanes[0].End(nil)
		openAndEnd(1025)
		synctest.Wait()
		if len(lanes) != 1025 {
			t.Errorf("%d lanes after one was ended", len(lanes))
		}
	})
}

// TestShortBetweenLong: who sends frames in pieces and short ones in turn has no more memory held
// than the credit that they cost.
func TestShortBetweenLong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a := start(t, n, "a", nil)
		a.SetPeers(peers("a", "b"))
		c, tr := intrude(t, n, a)
		head := []byte{0x30, 0, 1, 0, 0, 0, 0, 0, 0, 0} // of a frame: kind, flags, target
		b := frame(5, 0, 1)
		for range 300 {
			b = append(b, frame(7, 0x0a, 1, append(head[:10:10], 2, 0, 0, 0, 'x')...)...) // the first of two bytes
			b = append(b, frame(7, 0x0c, 1, 'x')...)
			b = append(b, frame(7, 8, 1, append(head[:10:10], 'x')...)...)
		}
		go io.Copy(io.Discard, c) //nolint:errcheck // until the end
		write(t, c, b)
		l := <-a.opened
		l.Join(&collector{full: func() bool { return true }, gate: make(chan struct{})}, nil)
		synctest.Wait()
		if held := tr.Stats().Held; held < 3*299 {
			t.Fatalf("%d bytes of payload are held", held)
		}
		if m := l.Memory(); m > 64<<10 {
			t.Errorf("%d bytes are held with a credit of 64 KiB", m)
		}
		l.End(nil)
	})
}

// failing is a sink that takes nothing any more.
type failing struct{ collector }

func (*failing) TrySend(*fdipc.Frame) error { return io.ErrClosedPipe }

// TestSinkFailsWithinFrame: what comes for a sink that has failed within a frame in pieces is
// dropped, and the trunk stays.
func TestSinkFailsWithinFrame(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, a := victim(t)
		c, tr := intrude(t, n, a)
		go io.Copy(io.Discard, c) //nolint:errcheck // until the end
		write(t, c, frame(5, 0, 1))
		ended := make(chan *trunk.LaneEnd, 1)
		l := <-a.opened
		l.Join(&failing{}, func(e *trunk.LaneEnd) { ended <- e })
		head := []byte{0x30, 0, 1, 0, 0, 0, 0, 0, 0, 0}                          // of a frame: kind, flags, target
		write(t, c, frame(7, 0x0a, 1, append(head[:10:10], 2, 0, 0, 0, 'x')...)) // the first of two bytes
		write(t, c, frame(7, 0, 1, head...))                                     // of the other flow
		write(t, c, frame(7, 0x0c, 1, 'x'))                                      // the rest
		write(t, c, frame(7, 8, 1, head...))                                     // another one
		if e := <-ended; !errors.Is(e, io.ErrClosedPipe) {
			t.Error(e)
		}
		<-time.After(1500 * time.Millisecond) // of the bubble: a trunk that is given up has ended by then
		if a.Trunk("b") != tr {
			t.Error("the trunk is lost")
		}
		l.End(nil)
	})
}

// TestSilentConnections: connections that say nothing are given up, and do not keep a peer out.
func TestSilentConnections(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n, a := victim(t)
		for range 200 {
			if _, err := n.Dial(t.Context(), "x", "a"); err != nil {
				t.Fatal(err)
			}
		}
		intrude(t, n, a)
		ended := 0
		for ended < 200 {
			if err := (<-a.failed).err; !errors.Is(err, trunk.ErrRefused) {
				ended++
			}
		}
	})
}

// TestRefused: who does not belong here is told why, and so is this side.
func TestRefused(t *testing.T) {
	for name, row := range map[string]struct {
		edit func(g *greeting)
		want string
	}{
		"another cluster":  {func(g *greeting) { g.names[0] = "shed" }, "cluster shed, and shop here"},
		"no peer":          {func(g *greeting) { g.names[1] = "z" }, "z is not one of the peers"},
		"its own name":     {func(g *greeting) { g.names[1] = "a" }, "of the host itself, or of a copy"},
		"its own boot":     {func(g *greeting) { g.names[2] = "boota" }, "of the host itself, or of a copy"},
		"another is meant": {func(g *greeting) { g.names[3] = "c" }, "b wanted c and found a"},
		"a later version":  {func(g *greeting) { g.oldest, g.newest = 2, 3 }, "versions 2 to 3 of the protocol, and 1 here"},
		"a name taken":     {func(g *greeting) { g.names[2] = "0other" }, "the name b is taken: by boot 0boot"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n, a := victim(t)
				intrude(t, n, a)
				g := newGreeting()
				row.edit(&g)
				c, err := n.Dial(t.Context(), "b", "a")
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				write(t, c, g.frame())
				h, body := readFrame(t, c)
				if h[4] != 3 || body[0] != 2 || !strings.Contains(string(body[1:]), row.want) {
					t.Errorf("answered %d: %q", h[4], body)
				}
				for {
					if err := (<-a.failed).err; errors.Is(err, trunk.ErrRefused) && strings.Contains(err.Error(), row.want) {
						break
					}
				}
				if a.Trunk("b") == nil {
					t.Error("the trunk that there was is lost")
				}
			})
		})
	}
}

// TestReplaced: a later gateway of the same boot, and the same one if it has lost the trunk, take
// the place of the trunk that there is; another connection does not.
func TestReplaced(t *testing.T) {
	for name, row := range map[string]struct {
		edit     func(g *greeting, number uint64)
		replaced bool
	}{
		"a duplicate":      {func(*greeting, uint64) {}, false},
		"an earlier loss":  {func(g *greeting, number uint64) { g.lost = number - 1 }, false},
		"the trunk's loss": {func(g *greeting, number uint64) { g.lost = number }, true},
		"a later gateway":  {func(g *greeting, _ uint64) { g.incarnation++ }, true},
		"an earlier one":   {func(g *greeting, _ uint64) { g.incarnation-- }, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n, a := victim(t)
				g := newGreeting()
				g.names[2] = "zboot" // higher than a's, which decides
				join := func() (typ byte, number uint64) {
					c, err := n.Dial(t.Context(), "b", "a")
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() { c.Close() })
					write(t, c, g.frame())
					readFrame(t, c)
					h, body := readFrame(t, c)
					if h[4] == 2 {
						number = binary.LittleEndian.Uint64(body)
					}
					return h[4], number
				}
				typ, number := join()
				first := <-a.up
				if typ != 2 {
					t.Fatalf("answered with type %d", typ)
				}
				row.edit(&g, number)
				typ, _ = join()
				if row.replaced {
					<-a.down
					if second := <-a.up; typ != 2 || second == first || a.Trunk("b") != second {
						t.Errorf("answered with type %d", typ)
					}
				} else if typ != 3 || a.Trunk("b") != first {
					t.Errorf("answered with type %d", typ)
				}
			})
		})
	}
}

// TestFormerBoot: a boot that a later one has replaced gets no trunk any more, and both sides hear
// why.
func TestFormerBoot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a := start(t, n, "a", nil)
		a.SetPeers(peers("a", "b"))
		begin := func(boot string) *host {
			b := start(t, n, "b", func(cfg *trunk.Config) { cfg.Self.Boot = boot })
			b.SetPeers(peers("a", "b"))
			return b
		}
		for _, boot := range []string{"one", "two"} {
			b := begin(boot)
			for (<-a.up).Peer().Boot != boot { // when both dial at once, there may be two of the one before
			}
			b.Close()
			<-a.down
			synctest.Wait() // until its listener is closed too
		}
		b := begin("one")
		for _, h := range []*host{a, b} {
			for refused := false; !refused; {
				select {
				case e := <-h.failed: // at first for other reasons too, as that a is none of its peers yet
					refused = errors.Is(e.err, trunk.ErrRefused) && strings.Contains(e.err.Error(), "replaced by two")
				case tr := <-a.up:
					if tr.Peer().Boot == "one" {
						t.Fatal("it has a trunk")
					}
				}
			}
		}
	})
}

// TestBootOfAnother: a host cannot say the boot of another, which has had a trunk under it.
func TestBootOfAnother(t *testing.T) {
	bubble(t, func(t *testing.T) {
		n := hoststest.NewNet(1)
		a, b := start(t, n, "a", nil), start(t, n, "b", nil)
		a.SetPeers(peers("a", "b", "c"))
		b.SetPeers(peers("a", "b"))
		theirs := (<-a.up).Peer().Boot
		c := start(t, n, "c", func(cfg *trunk.Config) { cfg.Self.Boot = theirs })
		c.SetPeers(peers("a", "c"))
		<-time.After(time.Minute) // of the bubble
		if got := a.ByBoot(theirs); got == nil || got.Peer().Name != "b" || a.Trunk("c") != nil {
			t.Errorf("the boot of b is that of %v; a trunk to c: %v", got, a.Trunk("c"))
		}
	})
}
