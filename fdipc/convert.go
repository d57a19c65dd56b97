package fdipc

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
)

// convert claims h and hands its contents to f, which takes ownership of them when it returns no
// error. On an error h is as it was, or gone if its sender has taken it back.
func (h *Handle) convert(what string, f func() error) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.claimLocked()
	if err == nil {
		if err = f(); err == nil {
			h.state, h.fd, h.v = handleGone, -1, nil
			return nil
		}
	}
	return fmt.Errorf("fdipc: handle as %s: %w", what, err)
}

// Conn claims h and converts it into a net.Conn, owned by the caller. See [Socket] for what a TCP
// or Unix connection becomes. On [ErrHandleKind] the handle stays claimed, and with its owner.
func (h *Handle) Conn() (c net.Conn, err error) {
	err = h.convert("connection", func() (err error) {
		if v, ok := h.v.(net.Conn); ok {
			c = v
			return nil
		}
		c, err = h.netConn()
		return err
	})
	return c, err
}

// Listener claims h and converts it into a net.Listener, owned by the caller.
func (h *Handle) Listener() (net.Listener, error) {
	return convertTo(h, "listener", net.FileListener, HandleTCPListener, HandleUnixListener, HandleUnixPacketListener)
}

// PacketConn claims h and converts it into a net.PacketConn, owned by the caller.
func (h *Handle) PacketConn() (net.PacketConn, error) {
	return convertTo(h, "packet connection", net.FilePacketConn, HandleUDP, HandleUnixgram)
}

// convertTo converts h, if it is of one of the kinds: into the T that it holds, or that from makes.
func convertTo[T any](h *Handle, what string, from func(*os.File) (T, error), kinds ...HandleKind) (out T, err error) {
	err = h.convert(what, func() (err error) {
		if v, ok := h.v.(T); ok {
			out = v
			return nil
		}
		if !slices.Contains(kinds, h.kindLocked()) {
			return ErrHandleKind
		}
		f, done, err := h.asFile()
		if err != nil {
			return err
		}
		out, err = from(f)
		return done(err)
	})
	return out, err
}

// File claims h and converts it into a file, owned by the caller. Any descriptor can be a file.
func (h *Handle) File() (f *os.File, err error) {
	err = h.convert("file", func() (err error) {
		if v, ok := h.v.(*os.File); ok {
			f = v
			return nil
		}
		if f, _, err = h.asFile(); err == nil && h.v != nil {
			return h.v.(io.Closer).Close() // f is a duplicate
		}
		return err
	})
	return f, err
}

// asFile returns a file for package net to duplicate. done closes what is not needed after that,
// and puts things back on an error.
func (h *Handle) asFile() (f *os.File, done func(error) error, err error) {
	if h.v != nil {
		v, ok := h.v.(interface{ File() (*os.File, error) })
		if !ok {
			return nil, nil, ErrHandleKind
		}
		f, err := v.File()
		if err != nil {
			return nil, nil, err
		}
		return f, func(err error) error {
			f.Close()
			if err == nil {
				h.v.(io.Closer).Close()
			}
			return err
		}, nil
	}
	if h.fd < 0 {
		return nil, nil, ErrHandleKind
	}
	if h.from != nil && h.kindLocked() == HandleFile {
		f, err = h.blockingFile()
	} else {
		f = os.NewFile(uintptr(h.fd), h.Name())
	}
	if err != nil {
		return nil, nil, err
	}
	return f, func(err error) error {
		if err != nil {
			// The file owns the descriptor now; h is closed with it.
			h.state, h.fd = handleGone, -1
			return errors.Join(err, f.Close())
		}
		return f.Close()
	}, nil
}
