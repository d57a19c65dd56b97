package fdipc

import (
	"errors"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

func TestMux(t *testing.T) {
	var got string
	note := func(s string) func(*Conn, *Frame) { return func(*Conn, *Frame) { got = s } }
	m, err := NewMux(
		Route{First: 0x10, Last: 0x2f, Handler: note("a"), NoFiles: note("a without")},
		Route{First: 0x30, Handler: note("b")},
		Route{First: 0x40, Last: 0xff, Handler: note("c")},
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		kind         Kind
		frame, noFDs string
	}{
		{0x0f, "", ""},
		{0x10, "a", "a without"},
		{0x2f, "a", "a without"},
		{0x30, "b", ""},
		{0x31, "", ""},
		{0x40, "c", ""},
		{0xff, "c", ""},
	} {
		h := HandleFD(-1)
		h.state, h.from = handleReceived, &Conn{peer: claims.New(make([]uint64, claims.Len(1)))}
		got = ""
		if m.Handle(nil, &Frame{Kind: tt.kind, Handles: []*Handle{h}}); got != tt.frame {
			t.Errorf("kind %#x went to %q, want %q", tt.kind, got, tt.frame)
		}
		if refused := h.state == handleGone; refused != (tt.frame == "") {
			t.Errorf("kind %#x: its handle refused: %v", tt.kind, refused)
		}
		got = ""
		if m.NoFiles(nil, &Frame{Kind: tt.kind}); got != tt.noFDs {
			t.Errorf("kind %#x without its handles went to %q, want %q", tt.kind, got, tt.noFDs)
		}
	}
}

func TestMuxBadRoutes(t *testing.T) {
	ignore := func(*Conn, *Frame) {}
	for _, tt := range []struct {
		name   string
		routes []Route
		want   string
	}{
		{"overlap", []Route{{First: 0x40, Last: 0x4f, Handler: ignore}, {First: 0x4f, Last: 0x5f, Handler: ignore}}, "route 0x4f to 0x5f overlaps route 0x40 to 0x4f"},
		{"one kind twice", []Route{{First: 0x40, Handler: ignore}, {First: 0x40, Handler: ignore}}, "overlaps"},
		{"the transport's", []Route{{First: 0x0f, Last: 0x10, Handler: ignore}}, "takes the transport's own"},
		{"empty", []Route{{First: 0x50, Last: 0x4f, Handler: ignore}}, "is empty"},
		{"no handler", []Route{{First: 0x50}}, "has no Handler"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, err := NewMux(tt.routes...)
			if m != nil || !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}
