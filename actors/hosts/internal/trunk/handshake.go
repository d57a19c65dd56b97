package trunk

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"time"
)

// errDuplicate: the two hosts have a trunk already. It is nobody's fault.
var errDuplicate = errors.New("there is a trunk")

// keep has a trunk to a peer: it dials while there is none, until the host is no peer.
func (m *Mesh) keep(p *pair) {
	var pause time.Duration
	for {
		m.mu.Lock()
		address, cur := p.address, p.cur
		if over := m.closed || address == "" && cur == nil; over {
			delete(m.pairs, p.name)
			m.mu.Unlock()
			return
		}
		m.mu.Unlock()
		if address != "" && cur == nil {
			err := m.dial(p, address)
			if err == nil {
				continue
			}
			if !errors.Is(err, errDuplicate) {
				m.failed(p.name, err)
			}
			pause = min(max(2*pause, firstPause), maxPause)
			timer := time.NewTimer(pause/2 + rand.N(pause/2)) // apart from the peer's
			select {
			case <-timer.C:
			case <-p.changed:
			case <-m.ctx.Done():
			}
			timer.Stop()
			continue
		}
		pause = 0
		select {
		case <-p.changed:
		case <-m.ctx.Done():
		}
	}
}

func (m *Mesh) dial(p *pair, address string) error {
	ctx, cancel := context.WithTimeout(m.ctx, handshakeTimeout)
	defer cancel()
	c, err := m.cfg.Dial(ctx, address)
	if err != nil {
		return err
	}
	_, err = m.handshake(ctx, c, p)
	return err
}

// handshaken is a connection of which both sides know who is at the other end.
type handshaken struct {
	conn    net.Conn
	watch   *watched
	in      *bufio.Reader
	dialled bool
	hello   hello // the peer's
	number  uint64
}

// handshake makes a connection a trunk, or closes it. p is the peer that was dialled, nil for a
// connection that was accepted. It returns the name of the peer, as far as it is known.
//
// The side that dialled says who it is, then the other. Then the side of the lower boot decides
// whether this connection is the trunk, since of two hosts that dial each other both would.
func (m *Mesh) handshake(ctx context.Context, raw net.Conn, p *pair) (name string, err error) {
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	c := &handshaken{watch: newWatched(raw, m.cfg.Silence), dialled: p != nil}
	defer func() {
		if err != nil {
			raw.Close()
			if ctx.Err() != nil && m.ctx.Err() == nil {
				err = fmt.Errorf("no trunk within %v: %w", handshakeTimeout, err)
			}
		}
	}()
	deadline, _ := ctx.Deadline()
	c.watch.last(deadline)
	if p != nil {
		name = p.name
	}
	sure := "" // the name in the certificate
	if c.conn = c.watch; m.creds != nil {
		cfg, err := m.creds.config(p == nil, func(host string) error {
			if sure = host; p != nil && host != p.name {
				return fmt.Errorf("%w: the host at that address is %s", ErrRefused, host)
			}
			return nil
		})
		if err != nil {
			m.failed("", err)
		}
		if cfg == nil {
			return name, err
		}
		conn := tls.Client(c.watch, cfg)
		if p == nil {
			conn = tls.Server(c.watch, cfg)
		}
		if err := conn.HandshakeContext(ctx); err != nil {
			return name, refusal(err)
		}
		c.conn = conn
	}
	c.in = bufio.NewReaderSize(c.conn, readBuffer)

	if p != nil {
		if err := m.sendHello(c, p); err != nil {
			return name, err
		}
	}
	if err := c.readHello(); err != nil {
		return name, err
	}
	who := c.hello.host.Name
	q, err := m.check(&c.hello, p, sure)
	if err != nil {
		return who, c.refuse(goawayRefused, err)
	}
	if p == nil {
		if err := m.sendHello(c, q); err != nil {
			return who, err
		}
	}
	return who, m.settle(ctx, c, q, stop)
}

// refusal adds ErrRefused to what the peer says of a certificate, which a human must see to.
func refusal(err error) error {
	var opErr *net.OpError
	if errors.As(err, &opErr) && opErr.Op == "remote error" {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

func (m *Mesh) sendHello(c *handshaken, p *pair) error {
	m.mu.Lock()
	h := hello{oldest: version, newest: version, lost: p.lost, host: m.cfg.Self, cluster: m.cfg.Cluster, to: p.name}
	m.mu.Unlock()
	_, err := c.conn.Write(appendFrame(nil, typeHello, 0, 0, h.bytes(), nil))
	return err
}

// read reads a frame of the handshake, or the goaway instead of it.
func (c *handshaken) read(want frameType) ([]byte, error) {
	h, body, err := readFrame(c.in)
	if err != nil {
		return nil, err
	}
	defer c.in.Discard(headerSize + h.n) //nolint:errcheck // it was peeked at
	switch {
	case h.typ == want:
		return append([]byte(nil), body...), nil
	case h.typ != typeGoaway || len(body) == 0:
		return nil, protocolError("type %d in a handshake", h.typ)
	case body[0] == goawayDuplicate:
		return nil, errDuplicate
	default:
		return nil, fmt.Errorf("%w by the peer: %q", ErrRefused, body[1:])
	}
}

func (c *handshaken) readHello() error {
	b, err := c.read(typeHello)
	if err == nil {
		c.hello, err = parseHello(b)
	}
	return err
}

// refuse tells the peer why this does not become a trunk.
func (c *handshaken) refuse(code byte, err error) error {
	c.conn.Write(appendFrame(nil, typeGoaway, 0, 0, []byte{code}, []byte(err.Error()))) //nolint:errcheck // it is over
	return err
}

// check returns the pair that a hello is of, or why its host is refused.
func (m *Mesh) check(h *hello, p *pair, sure string) (*pair, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.pairs[h.host.Name]
	self, why := m.cfg.Self, ""
	switch {
	case h.newest < version || h.oldest > version:
		why = fmt.Sprintf("versions %d to %d of the protocol, and %d here", h.oldest, h.newest, version)
	case h.cluster != m.cfg.Cluster:
		why = fmt.Sprintf("cluster %s, and %s here", h.cluster, m.cfg.Cluster)
	case h.host.Name == self.Name || h.host.Boot == self.Boot:
		why = fmt.Sprintf("name %s and boot %s are those of the host itself, or of a copy of it", h.host.Name, h.host.Boot)
	case sure != "" && sure != h.host.Name:
		why = fmt.Sprintf("host %s with a certificate of %s", h.host.Name, sure)
	case sure != "" && !strings.HasPrefix(h.host.Boot, markOf(sure)):
		why = fmt.Sprintf("%s has the boot %s, which is not of its name", h.host.Name, h.host.Boot)
	case p != nil && p.name != h.host.Name || h.to != self.Name:
		why = fmt.Sprintf("%s wanted %s and found %s", h.host.Name, h.to, self.Name)
	case q == nil || q.address == "":
		why = fmt.Sprintf("%s is not one of the peers", h.host.Name)
	case q.taken(h.host):
		why = fmt.Sprintf("the name %s is taken: by boot %s, for %v", q.name, q.cur.peer.Boot, time.Since(q.cur.since).Round(time.Second))
	default:
		if why = m.badBootLocked(h.host); why == "" {
			return q, nil
		}
	}
	return nil, fmt.Errorf("%w: %s", ErrRefused, why)
}

// taken reports whether another start of the host has a trunk that lives.
func (p *pair) taken(host Host) bool {
	return p.cur.alive() != nil && p.cur.peer.Boot != host.Boot
}

// settle decides whether the connection is the trunk, or hears it, and makes it that.
func (m *Mesh) settle(ctx context.Context, c *handshaken, p *pair, stop func() bool) error {
	decides := m.cfg.Self.Boot < c.hello.host.Boot
	if !decides {
		b, err := c.read(typeGo)
		if err != nil {
			return err
		}
		if len(b) != 8 {
			return protocolError("a go of %d bytes", len(b))
		}
		c.number = binary.LittleEndian.Uint64(b)
	}
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	m.mu.Lock()
	old := p.cur
	if m.pairs[p.name] != p || p.address == "" { // since the hello
		m.mu.Unlock()
		return c.refuse(goawayRefused, fmt.Errorf("%w: %s is not one of the peers", ErrRefused, p.name))
	}
	if decides {
		if err := p.refuses(&c.hello); err != nil {
			m.mu.Unlock()
			code := byte(goawayRefused)
			if errors.Is(err, errDuplicate) {
				code = goawayDuplicate
			}
			return c.refuse(code, err)
		}
		m.number++
		c.number = m.number
	}
	m.mu.Unlock()
	if decides {
		if _, err := c.conn.Write(appendFrame(nil, typeGo, 0, 0, binary.LittleEndian.AppendUint64(nil, c.number), nil)); err != nil {
			return err
		}
	}
	if old != nil { // the peer has lost it, or will have
		old.fail(errors.New("another one has taken its place"))
		select {
		case <-old.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if !stop() {
		return ctx.Err()
	}
	m.mu.Lock()
	if m.closed || m.pairs[p.name] != p || p.address == "" {
		m.mu.Unlock()
		return errDuplicate
	}
	if why := m.badBootLocked(c.hello.host); why != "" { // it was quicker
		m.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrRefused, why)
	}
	m.rememberLocked(p, c.hello.host.Boot)
	t := newTrunk(m, p, c)
	c.watch.start()
	p.cur = t
	m.wg.Add(1)
	m.mu.Unlock()
	if m.cfg.Up != nil {
		m.cfg.Up(t)
	}
	p.poke()
	go t.live() // until the connection ends; Close waits for it
	return nil
}

// refuses returns why a connection does not become the trunk, or nil. A peer that has lost the
// trunk there is may have another.
func (p *pair) refuses(h *hello) error {
	cur := p.cur.alive()
	switch {
	case cur == nil || cur.peer.Boot == h.host.Boot && (h.host.Incarnation > cur.peer.Incarnation ||
		h.host.Incarnation == cur.peer.Incarnation && h.lost >= cur.number):
		return nil
	case cur.peer.Boot != h.host.Boot:
		return fmt.Errorf("%w: the name %s is taken", ErrRefused, p.name)
	case h.host.Incarnation < cur.peer.Incarnation:
		return fmt.Errorf("%w: gateway %d of %s was replaced by %d", ErrRefused, h.host.Incarnation, p.name, cur.peer.Incarnation)
	}
	return errDuplicate
}

// live runs the trunk and tells of its end.
func (t *Trunk) live() {
	m, p := t.mesh, t.pair
	defer m.wg.Done()
	t.run()
	m.mu.Lock()
	p.lost = t.number
	m.mu.Unlock()
	if m.cfg.Down != nil {
		m.cfg.Down(t, t.why)
	}
	m.mu.Lock()
	p.cur = nil
	m.mu.Unlock()
	close(t.over)
	p.poke()
}
