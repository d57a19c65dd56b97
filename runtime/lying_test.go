package coppice

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// TestLyingChild: the lines of log that a child can cause by frames that mean
// nothing grow with the logarithm of their number.
func TestLyingChild(t *testing.T) {
	var b bytes.Buffer
	p := &poolWorker{
		driver:   &poolDriver{poolParts: poolParts{log: slog.New(slog.NewTextHandler(&b, nil))}},
		hello:    childproto.Hello{ID: 3},
		attached: make(chan struct{}),
	}
	p.assigned.Store(&assignment{name: "web/0"})
	close(p.attached)
	const frames = 100_000
	for range frames {
		p.handle(nil, &fdipc.Frame{Kind: childproto.FrameExitNotice, Payload: []byte("{")})
	}
	lines := strings.Count(b.String(), "\n")
	if lines != 17 || !strings.Contains(b.String(), "frames=65536") {
		t.Errorf("%d frames caused %d lines, the last: %s", frames, lines, b.String()[max(0, b.Len()-300):])
	}
}

// TestLyingDeclaration: of what a child declares the first frame counts, if it comes before the
// child is ready and is within its bound. The log has few lines of it, and short ones.
func TestLyingDeclaration(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	declare := func(w *poolWorker, lines ...string) {
		w.handle(nil, childproto.NewFrame(childproto.FrameDeclaration, childproto.DeclarationFrame{Lines: lines}))
	}
	tree := []string{"web is Pool", "web Size 2"}
	gen := &generation{number: firstGeneration}
	driver := &poolDriver{path: "web", poolParts: poolParts{log: log, generations: &generations{current: gen}, declarations: newDeclarations(log, tree, func() []string { return tree[:1] })}}
	fresh := func() *poolWorker {
		w := &poolWorker{driver: driver, gen: gen, attached: make(chan struct{}), ready: make(chan struct{})}
		w.assigned.Store(&assignment{name: "web/0"})
		close(w.attached)
		return w
	}
	w := fresh()
	declare(w, strings.Repeat("x", 1<<20))
	if w.declared.Load() != nil {
		t.Error("a frame beyond the bound is believed")
	}
	declare(w, "web is Pool", "web Size 1")
	declare(w, "web is Pool", "web Size 4096")
	if text := b.String(); w.declared.Load() == nil || !strings.Contains(text, "web.Size 1") || strings.Contains(text, "4096") {
		t.Errorf("not the first frame is believed: %s", text)
	}
	w = fresh()
	close(w.ready)
	declare(w, "web is Pool", "web Size 4096")
	if w.declared.Load() != nil {
		t.Error("a frame after ready is believed")
	}

	b.Reset()
	d := newDeclarations(log, tree, func() []string { return tree[:1] })
	lies := []string{"web is Pool", "web Size 1\n2", "web is Pool", "", " ", "\n"}
	for i := range 2000 {
		lies = append(lies, fmt.Sprintf("child%d%s is Lie", i, strings.Repeat("y", 1000)))
	}
	if err := d.add("web/0", "web", firstGeneration, lies, false); err != nil {
		t.Error(err)
	}
	if err := d.add("web/0", "web", 2, lies[:1], true); err != nil {
		t.Error(err)
	}
	if sizes := d.reloaded(firstGeneration, 2); len(sizes) != 0 {
		t.Errorf("sizes %v", sizes)
	}
	if err := d.add("web/0", "web", 3, append(lies, "web is Lie"), true); err == nil || len(err.Error()) > 200 {
		t.Errorf("without the pool: %v", err)
	}
	if err := d.add("web/0", "web", 3, append([]string{"web is Pool"}, lies[4:]...), true); err != nil {
		t.Error(err)
	}
	d.reloaded(2, 3)
	if n := strings.Count(b.String(), "\n"); n > 25 || b.Len() > 20<<10 {
		t.Errorf("%d lines, %d bytes", n, b.Len())
	}
}
