package registry

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/coppice-go/coppice/netactor/internal/address"
	"github.com/coppice-go/coppice/netactor/internal/socket"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// A Store keeps duplicates of the Table's sockets beyond the end of the program, and has those that
// an earlier run left there: systemd's descriptor store. A name begins with [StorePrefix] and has
// at most 255 printable ASCII characters, none of them a colon. Its methods may be called by any
// goroutine, and wait for the store with measure.
type Store interface {
	// Take returns a socket of an earlier run, one for which match returns true; the caller owns
	// the descriptor. No socket is returned twice.
	Take(match func(name string, fd int) bool) (name string, fd int, ok bool)

	// Keep puts a duplicate of fd into the store. It returns false if there is no room.
	Keep(name string, fd int) bool

	// Drop closes the duplicate in the store, before it returns if the store answers in time.
	Drop(name string)

	// Leave takes ownership of fd, whose duplicate stays in the store, for the next Take.
	Leave(name string, fd int)
}

// StorePrefix begins the name of each socket in a [Store].
const StorePrefix = "coppice;"

// maxStored bounds the share key in a name, in bytes: the rest of 255 is for StorePrefix, the index
// and the file.
const maxStored = 180

// storedAs returns how the names begin under which sockets with a share key are in the store. What
// follows is an index, and for a Unix socket with a file another semicolon and the file.
func storedAs(key string) string {
	var b strings.Builder
	for i := range len(key) {
		switch c := key[i]; {
		case c == ':':
			b.WriteByte(';')
		case c <= ' ' || c > '~' || c == ';' || c == '%':
			fmt.Fprintf(&b, "%%%02x", c)
		default:
			b.WriteByte(c)
		}
	}
	if b.Len() > maxStored {
		return fmt.Sprintf("%ssha256;%x;", StorePrefix, sha256.Sum256([]byte(key)))
	}
	return StorePrefix + b.String() + ";"
}

// obtain returns the socket of r, whose share key is key: a socket that an earlier run left in the
// store and that still fits, or else a new one.
func (t *Table) obtain(key string, r socket.SocketSpec) (*socket.Bound, error) {
	store := t.cfg.Store
	if store == nil || r.FD != 0 {
		return socket.Open(r)
	}
	prefix := storedAs(key)
	for {
		name, fd, ok := store.Take(func(name string, _ int) bool { return strings.HasPrefix(name, prefix) })
		if !ok {
			break
		}
		_, file, _ := strings.Cut(name[len(prefix):], ";") // after the index
		s, err := socket.Retake(fd, file, r)
		if err == nil {
			s.Kept = name
			return s, nil
		}
		t.cfg.Logger.Warn("a socket that systemd kept does not fit any more: it is closed, and opened anew", "name", name, "err", err)
		store.Drop(name)
	}
	s, err := socket.Open(r)
	for errors.Is(err, syscall.EADDRINUSE) && t.dropRival(r) {
		s, err = socket.Open(r)
	}
	return s, err
}

// dropRival closes a socket of an earlier run that no request has asked for and that may have the
// address of r. It returns false if there is none.
func (t *Table) dropRival(r socket.SocketSpec) bool {
	name, fd, ok := t.cfg.Store.Take(func(name string, fd int) bool {
		if port := wire.Port(r.Request); port >= 0 {
			return port > 0 && int(socket.Port(fd)) == port && socket.IsPacket(fd) == address.IsPacket(r.Network)
		}
		for _, network := range []string{"unix", "unixpacket", "unixgram"} {
			other := r.Request
			other.Network = network
			if strings.HasPrefix(name, storedAs(wire.Key(other))) {
				return true
			}
		}
		return false
	})
	if ok {
		t.cfg.Logger.Warn("a socket that systemd kept has the address of another listener now: it is closed", "name", name, "addr", r.Address)
		_ = os.NewFile(uintptr(fd), name).Close()
		t.cfg.Store.Drop(name)
	}
	return ok
}

// keep puts a socket that the Table opened itself into the store. A socket that was given to the
// master is its giver's to keep: the giver opens it again at the next start, and must find its
// address free.
func (t *Table) keep(key socketKey, s *socket.Bound) {
	if t.cfg.Store == nil || s.Kept != "" {
		return
	}
	t.mu.Lock()
	state := t.state.sockets[key.number]
	if state == nil || state.given() {
		t.mu.Unlock()
		return
	}
	prefix, isPath := storedAs(state.key), address.IsLocal(state.req.Network) && !strings.HasPrefix(state.req.Address, "@")
	t.mu.Unlock()
	file := ""
	if isPath {
		if file = s.FileID(); file == "" {
			return // it cannot be told from another one later
		}
		file = ";" + file
	}
	taken := make(map[string]bool)
	for _, other := range t.sockets {
		taken[other.Kept] = true
	}
	name := ""
	for i := 0; name == "" || taken[name]; i++ {
		name = fmt.Sprintf("%s%d%s", prefix, i, file)
	}
	if t.cfg.Store.Keep(name, s.Descriptor()) {
		s.Kept = name
	}
}

// ending reports whether the sockets of the Store stay there.
func (t *Table) ending() bool { return t.cfg.Ending != nil && t.cfg.Ending() }

// closeSocket closes a socket of the Table, also in the store, unless the program ends: then it
// stays there, with its file.
func (t *Table) closeSocket(s *socket.Bound) {
	if s.Kept != "" {
		t.mu.Lock()
		closed := t.closed
		t.mu.Unlock()
		if closed || t.ending() {
			t.cfg.Store.Leave(s.Kept, s.Release())
			return
		}
		t.cfg.Store.Drop(s.Kept)
		s.Kept = ""
	}
	s.CloseInBackground()
}
