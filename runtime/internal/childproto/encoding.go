package childproto

import (
	"encoding/json"
	"fmt"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
	"github.com/coppice-go/coppice/supervisor"
)

// NewFrame returns the frame that carries v on the control lane.
func NewFrame(kind fdipc.Kind, v any, handles ...*fdipc.Handle) *fdipc.Frame {
	payload, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("coppice: %T does not encode: %v", v, err)) // our own types always do
	}
	return &fdipc.Frame{Kind: kind, Lane: fdipc.Control, Payload: payload, Handles: handles}
}

// maxTelemetry bounds a payload of a child's pipeline, in bytes. Package tracing/otlp sends
// 256 KiB at most, but for a longer single span.
const maxTelemetry = 2 << 20

// maxPayload bounds the payload of a frame from a child, in bytes: a few texts of up to
// supervisor.MaxText in JSON, which may write six bytes for one. A longer frame is refused
// before it is decoded.
func maxPayload(kind fdipc.Kind) int {
	switch kind {
	case FrameStacks:
		return 6*stacks.Max + 1024
	case FrameDeclaration:
		return 6*declaration.MaxText + 1024
	case FrameSpans, FrameMetrics:
		return maxTelemetry
	default:
		return 4*6*supervisor.MaxText + 1024
	}
}

// OwnKind reports whether this package declares frames of kind k.
func OwnKind(k fdipc.Kind) bool {
	return k >= FrameHello && k <= FrameGuardedKey || k == FrameSpans || k == FrameMetrics
}

// WithinBounds returns an error for a frame of an own kind whose payload is too long.
func WithinBounds(f *fdipc.Frame) error {
	if n := maxPayload(f.Kind); len(f.Payload) > n {
		return fmt.Errorf("coppice: frame %#x of %d bytes is longer than %d", uint8(f.Kind), len(f.Payload), n)
	}
	return nil
}

// Decode reads the payload of a frame that NewFrame made.
func Decode[T any](f *fdipc.Frame) (T, error) {
	var v T
	if err := json.Unmarshal(f.Payload, &v); err != nil {
		return v, fmt.Errorf("coppice: frame %#x: %w", uint8(f.Kind), err)
	}
	return v, nil
}

// Handle calls do with the payload of a frame that NewFrame made.
func Handle[T any](f *fdipc.Frame, do func(T)) error {
	v, err := Decode[T](f)
	if err == nil {
		do(v)
	}
	return err
}
