package jobs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"sync"

	"github.com/fxamacker/cbor/v2"
	"google.golang.org/protobuf/proto"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
)

// inline is the longest value that stands in a message; a longer one is a file in memory. To make,
// fill and free one costs more than to copy that much through a socket.
const inline = 128 << 10

// How a value is encoded. Part of the protocol between processes of one program.
const (
	encCBOR = iota
	encBytes
	encString
	encProto
)

// A body is an encoded value: bytes, or a file in memory that holds them, and the value's handles.
// It is part of messages, which carry the handles; whoever has it owns them.
type body struct {
	Enc     uint8  `cbor:"e,omitempty"`
	Bytes   blob   `cbor:"b,omitempty"`
	Size    int    `cbor:"s,omitempty"` // of the file, which is then the first handle; 0 = there is none
	handles []any  // *os.File, net.Conn and so on, or a claimed *fdipc.Handle
	mapped  []byte // the memory of a View
}

// A blob is the bytes of a value. Decoded, they are of the pool, to which they go back by recycle.
type blob []byte

// UnmarshalBinary is for package cbor.
func (b *blob) UnmarshalBinary(p []byte) error {
	if len(p) >= minPooled {
		*b = (*blobs.Get().(*blob))[:0]
	}
	*b = append(*b, p...)
	return nil
}

// blobs has memory of values that were received, of minPooled bytes at least.
var blobs = sync.Pool{New: func() any { return new(blob) }}

const minPooled = 4 << 10

// recycle gives back the memory of a value that was received, and is no longer in use.
func (b *body) recycle() {
	if p := b.Bytes; cap(p) >= minPooled && cap(p) <= 2*inline {
		blobs.Put(&p)
	}
	b.Bytes = nil
}

// A View is an input as the bytes of a function that only looks at it while it runs. Its memory is
// not the function's once that has returned: that of a long one, the file in memory that it came
// in, is gone, and a read of it later ends the process; a shorter one's has the input of a later
// call. The function's goroutines must have ended by then. No other process sees what is
// written to it. The caller passes a []byte, or a View.
type View []byte

// view maps the file.
func (b *body) view() (View, error) {
	if b.Enc != encBytes || len(b.handles) != 1 {
		return nil, errKind
	}
	f, err := asFile(b.handles[0])
	if err != nil {
		return nil, err
	}
	b.handles[0] = f
	b.mapped, err = memfile.View(f, b.Size)
	return b.mapped, err
}

// unmap ends the memory of a View.
func (b *body) unmap() {
	if b.mapped != nil {
		memfile.Unmap(b.mapped)
		b.mapped = nil
	}
}

// TakeHandles is for actors.HandleCarrier.
func (b *body) TakeHandles() []any {
	h := b.handles
	b.handles = nil
	return h
}

// SetHandles is for actors.HandleCarrier. The handles are claimed and not converted, since the
// queue hands them on.
func (b *body) SetHandles(handles []*fdipc.Handle) error {
	for _, h := range handles {
		if err := h.Claim(); err != nil {
			return err
		}
		b.handles = append(b.handles, h)
	}
	if b.Size < 0 || b.Size > 0 && len(handles) == 0 {
		return errors.New("a file in memory is missing")
	}
	return nil
}

// close closes the handles.
func (b *body) close() {
	for _, h := range b.TakeHandles() {
		if c, ok := h.(io.Closer); ok {
			_ = c.Close() // there is nothing to do about an error
		}
	}
}

// size returns the length of the encoded value.
func (b *body) size() int { return max(len(b.Bytes), b.Size) }

// hasOwn reports whether the value has handles of its own.
func (b *body) hasOwn() bool {
	n := len(b.handles)
	if b.Size > 0 {
		n--
	}
	return n > 0
}

// again returns a copy to send, with a file of its own; handles of the value itself move to it.
func (b *body) again() (body, error) {
	out := *b
	if b.Size == 0 {
		b.handles = nil
		return out, nil
	}
	f, err := asFile(b.handles[0])
	if err != nil {
		return body{}, err
	}
	b.handles[0] = f
	duplicate, err := memfile.Duplicate(f)
	if err != nil {
		return body{}, err
	}
	out.handles = append([]any{duplicate}, b.handles[1:]...)
	b.handles = b.handles[:1]
	return out, nil
}

func asFile(h any) (*os.File, error) {
	switch h := h.(type) {
	case *os.File:
		return h, nil
	case *fdipc.Handle:
		return h.File()
	}
	return nil, fmt.Errorf("%T is not a file", h)
}

func asConn(h any) (net.Conn, error) {
	switch h := h.(type) {
	case net.Conn:
		return h, nil
	case *fdipc.Handle:
		return h.Conn()
	}
	return nil, fmt.Errorf("%T is not a connection", h)
}

// Times keep nanoseconds and zone; what the receiver's type does not have is an error.
var (
	encoding = must(cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode())
	decoding = must(cbor.DecOptions{MaxNestedLevels: 64, MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 20, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// encode takes the handles of v.
func encode[T any](v T) (b body, err error) {
	switch v := any(v).(type) {
	case []byte:
		b.Enc, b.Bytes = encBytes, v
	case View:
		b.Enc, b.Bytes = encBytes, blob(v)
	case string:
		b.Enc, b.Bytes = encString, []byte(v)
	case *os.File, net.Conn:
		b.handles = []any{v}
		return b, nil
	case proto.Message:
		b.Enc = encProto
		b.Bytes, err = proto.Marshal(v)
	default:
		b.Bytes, err = encoding.Marshal(v)
	}
	if err == nil && len(b.Bytes) > inline {
		err = b.toFile()
	}
	if err != nil {
		return body{}, fmt.Errorf("encode %T: %w", v, err)
	}
	if c := carrier(&v); c != nil {
		b.handles = append(b.handles, c.TakeHandles()...)
	}
	return b, nil
}

// toFile moves the bytes to a file in memory. Where there are none they stay.
func (b *body) toFile() error {
	f, err := memfile.Sealed("coppice-job", b.Bytes)
	if err != nil {
		if errors.Is(err, errors.ErrUnsupported) {
			return nil
		}
		return err
	}
	b.Size, b.Bytes, b.handles = len(b.Bytes), nil, []any{f}
	return nil
}

// carrier returns the value as a HandleCarrier, if it or its pointer is one.
func carrier[T any](v *T) actors.HandleCarrier {
	if c, ok := any(*v).(actors.HandleCarrier); ok {
		return c
	}
	c, _ := any(v).(actors.HandleCarrier)
	return c
}

// decodeInput is decode for a function. What b has stays b's if it is a View.
func decodeInput[T any](b *body) (v T, err error) {
	if p, ok := any(&v).(*View); ok && b.Size > 0 {
		if *p, err = b.view(); err != nil {
			err = fmt.Errorf("decode %T: %w", v, err)
		}
		return v, err
	}
	return decode[T](b)
}

// decode takes ownership of what b has. On an error it is closed.
func decode[T any](b *body) (v T, err error) {
	defer func() {
		if b.close(); err != nil {
			err = fmt.Errorf("decode %T: %w", v, err)
		}
	}()
	if b.Size > 0 {
		if err := b.fromFile(); err != nil {
			return v, err
		}
	}
	switch p := any(&v).(type) {
	case *[]byte:
		err = b.raw(encBytes, func() error { *p = b.take(); return nil })
		return v, err
	case *View:
		err = b.raw(encBytes, func() error { *p = View(b.Bytes); return nil })
		return v, err
	case *string:
		err = b.raw(encString, func() error { *p = string(b.Bytes); return nil })
		return v, err
	case **os.File:
		err = b.one(func(h any) (err error) { *p, err = asFile(h); return err })
		return v, err
	case *net.Conn:
		err = b.one(func(h any) (err error) { *p, err = asConn(h); return err })
		return v, err
	}
	if t := reflect.TypeFor[T](); t.Kind() == reflect.Pointer {
		if m, ok := reflect.New(t.Elem()).Interface().(proto.Message); ok {
			v, _ = m.(T)
			return v, b.raw(encProto, func() error { return proto.Unmarshal(b.Bytes, m) })
		}
	}
	err = b.raw(encCBOR, func() error { return decoding.Unmarshal(b.Bytes, &v) })
	c := carrier(&v)
	if err != nil || c == nil {
		return v, err
	}
	var handles []*fdipc.Handle
	for _, h := range b.TakeHandles() {
		fh, ok := h.(*fdipc.Handle)
		if !ok {
			if fh, err = fdipc.HandleOf(h); err != nil {
				return v, err
			}
		}
		handles = append(handles, fh)
	}
	err = c.SetHandles(handles)
	return v, err
}

// take returns the bytes, which are the caller's then. They are not in much more memory than they
// need.
func (b *body) take() []byte {
	if n := len(b.Bytes); cap(b.Bytes) > 2*n && n >= minPooled {
		return bytes.Clone(b.Bytes)
	}
	taken := b.Bytes
	b.Bytes = nil
	return taken
}

var errKind = errors.New("the value is of another kind")

// raw calls set if the value is encoded as enc.
func (b *body) raw(enc uint8, set func() error) error {
	if b.Enc != enc || len(b.handles) > 0 && enc != encCBOR {
		return errKind
	}
	return set()
}

// one gives set the only handle.
func (b *body) one(set func(h any) error) error {
	if len(b.handles) != 1 {
		return fmt.Errorf("%d handles came", len(b.handles))
	}
	if err := set(b.handles[0]); err != nil {
		return err
	}
	b.handles = nil
	return nil
}

// fromFile reads the file into the bytes. Its size is the peer's word.
func (b *body) fromFile() error {
	f, err := asFile(b.handles[0])
	if err != nil {
		return err
	}
	b.handles = b.handles[1:]
	defer f.Close()
	s, err := f.Stat()
	if err != nil {
		return err
	}
	if s.Size() != int64(b.Size) {
		return fmt.Errorf("the file in memory has %d bytes, not %d", s.Size(), b.Size)
	}
	b.Bytes = make([]byte, b.Size)
	b.Size = 0
	_, err = io.ReadFull(io.NewSectionReader(f, 0, int64(len(b.Bytes))), b.Bytes)
	return err
}
