package actors

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/supervisor"
)

// Reasons this package gives itself.
var (
	normal   = supervisor.Reason{Kind: supervisor.Normal}
	shutdown = supervisor.Reason{Kind: supervisor.Shutdown}
	killed   = supervisor.Reason{Kind: supervisor.Killed}
	noActor  = errorReason(ErrNoActor)
)

// isNoActor reports whether r is noActor itself, and not the reason of an actor that ended because
// another one did not exist.
func isNoActor(r supervisor.Reason) bool {
	return r.Kind == supervisor.Error && r.Cause == ErrNoActor //nolint:errorlint // it and no other
}

func errorReason(err error) supervisor.Reason {
	return supervisor.Reason{Kind: supervisor.Error, Cause: err}
}

func panicReason(value any, stack []byte) supervisor.Reason {
	return supervisor.Reason{Kind: supervisor.Panic, Value: value, Stack: string(stack)}
}

// appendReason appends an exit reason: kind, code, signal and core dump, then detail, stack and
// cause or panic value as texts. Of a cause or value, only the text crosses, and which of this
// package's errors it is.
func appendReason(b []byte, r supervisor.Reason) []byte {
	core := byte(0)
	if r.Core {
		core = 1
	}
	b = append(b, byte(r.Kind), core)
	b = binary.AppendVarint(b, int64(r.Code))
	b = binary.AppendVarint(b, int64(r.Signal))
	b = wire.AppendString(b, supervisor.Cut(r.Detail))
	b = wire.AppendString(b, supervisor.Cut(r.Stack))
	switch {
	case r.Cause != nil:
		return appendText(append(b, 1), r.Cause)
	case r.Kind == supervisor.Panic:
		return wire.AppendString(append(b, 2), supervisor.Cut(fmt.Sprint(r.Value)))
	}
	return append(b, 0)
}

// reason reads what appendReason wrote.
func readReason(r *wire.Reader) supervisor.Reason {
	out := supervisor.Reason{Kind: supervisor.ReasonKind(r.Byte()), Core: r.Byte() == 1}
	if out.Kind > supervisor.Signaled {
		r.Fail()
	}
	out.Code, out.Signal = int(r.Int()), int(r.Int())
	out.Detail, out.Stack = r.Text(wire.MaxText), r.Text(wire.MaxText)
	switch r.Byte() {
	case 0:
	case 1:
		out.Cause = readCoded(r, r.Byte())
	case 2:
		out.Value = r.Text(wire.MaxText)
	default:
		r.Fail()
	}
	if r.Bad {
		return supervisor.Reason{}
	}
	return out
}

// appendText appends an error as its code and text.
func appendText(b []byte, err error) []byte {
	code := byte(codeOther)
	for _, c := range errorCodes {
		if errors.Is(err, c.err) {
			code = c.code
			break
		}
	}
	return wire.AppendString(append(b, code), supervisor.Cut(err.Error()))
}

// readCoded reads what appendText wrote behind its code.
func readCoded(r *wire.Reader, code byte) error {
	e := &remoteError{text: r.Text(wire.MaxText)}
	for _, c := range errorCodes {
		if c.code == code {
			e.kind = c.err
			if e.text == e.kind.Error() {
				return e.kind
			}
		}
	}
	return e
}
