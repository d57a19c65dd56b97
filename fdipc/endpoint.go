package fdipc

import (
	"errors"
	"sync"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"github.com/coppice-go/coppice/fdipc/internal/closer"
)

// errAgain: there is no room just now.
var errAgain = errors.New("no room")

// endpoint is one side of one lane's link: packets go out and come in whole. One goroutine at a
// time sends a packet, and one receives.
type endpoint interface {
	// try sends p without blocking, or returns errAgain.
	try(p *packet) error
	// send sends p and blocks while there is no room.
	send(p *packet) error
	// recv fills p and blocks until it can. io.EOF is the peer's end; any other
	// error is the link's.
	recv(p *packet) error
	// drain makes recv return io.EOF instead of blocking, from now on.
	drain()
	// ended reports whether the peer has closed its writing half. It does not block.
	ended() bool
	// stop refuses whatever either side would still send; recv gives what is there and then io.EOF.
	stop()
	// pause makes recv, and send, return os.ErrDeadlineExceeded instead of blocking, or lets them
	// again. What they return otherwise was sent, or received, whole.
	pause(reads, writes bool)
	// fd returns the descriptor, which stays the endpoint's; gone, whether drain was called.
	fd() int
	gone() bool
	close() error
	// pair makes a further link and returns its two ends, the second as an attachment for the peer.
	pair() (local endpoint, remote attachment, err error)
	// adopt makes an endpoint of what pair made on the other side, which Conn.checkDataLane has
	// checked. It takes ownership.
	adopt(attachment) (endpoint, error)
	// newTable makes a claim table, and the attachment that is it for the peer. adoptTable maps the
	// peer's; the caller closes the attachment.
	newTable(slots int) (*claims.Table, attachment, error)
	adoptTable(attachment) (*claims.Table, error)
}

// attachment travels beside the bytes of a packet: a descriptor through a socket, a Go value in
// memory.
type attachment struct {
	fd int // -1: none
	v  any
}

var noAttachment = attachment{fd: -1}

// close closes what this side has made. What a peer sent is closed by Conn.closers.
func (g attachment) close() {
	if g.fd >= 0 {
		closer.FD(g.fd)
	}
}

// packet is what one sendmsg or recvmsg moves. A packet has one owner at a time.
type packet struct {
	buf         []byte // capacity maxPacket
	frames      int    // frames that begin in it
	attachments []attachment
	truncated   bool // received: descriptors were lost (MSG_CTRUNC)

	// refs are the offers behind the attachments. They are looked up anew at every attempt to send,
	// because an offer can be taken back while its packet waits.
	refs []offerID
	off  *offerRecord

	io packetIO
}

type offerID struct{ slot, seq uint32 }

var packets = sync.Pool{New: func() any {
	p := &packet{buf: make([]byte, 0, maxPacket)}
	p.io.init(p)
	return p
}}

func newPacket() *packet { return packets.Get().(*packet) }

// free gives p back. It closes no attachment.
func (p *packet) free() {
	p.reset()
	packets.Put(p)
}

func (p *packet) reset() {
	p.buf, p.frames, p.truncated, p.off = p.buf[:0], 0, false, nil
	clear(p.attachments)
	p.attachments, p.refs = p.attachments[:0], p.refs[:0]
}

// load fills in the attachments before an attempt to send; unload must follow.
func (p *packet) load() {
	if len(p.refs) > 0 {
		p.off.load(p)
	}
}

func (p *packet) unload() {
	if len(p.refs) > 0 {
		p.off.unload(p)
	}
}
