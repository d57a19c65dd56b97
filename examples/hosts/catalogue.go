package main

import (
	"context"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	coppice "github.com/coppice-go/coppice/runtime"
)

// keepCatalogue is the worker function of a process that remembers the pages of some of the items:
// which, the group says, and no host has to own them.
func keepCatalogue(ctx context.Context, w *coppice.Worker) error {
	g, err := hosts.NewGroup(ctx, w.System(), "catalogue")
	if err != nil {
		return err
	}
	pid, err := w.System().Spawn(ctx, "catalogue", func() actor.Actor { return &catalogue{} })
	if err != nil {
		return err
	}
	if err := g.Join(ctx, w.Name(), pid); err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

type catalogue map[string]string

func (c catalogue) Receive(ctx actor.Context) {
	if m, ok := ctx.Message().(describe); ok {
		if c[m.Item] == "" {
			c[m.Item] = page(m.Item)
		}
		ctx.Respond(c[m.Item])
	}
}

// describe returns the page of an item: by the member of the group that has it, on whichever host,
// or made here if that one does not answer.
func (s *shop) describe(ctx context.Context, item string) string {
	ctx, cancel := context.WithTimeout(ctx, patience/3) // the rest is for the order
	defer cancel()
	pid, err := s.catalogue.Pick(item)
	if err == nil {
		var text string
		if text, err = actors.Ask[string](ctx, s.sys, pid, describe{item}); err == nil {
			return text
		}
	}
	return page(item)
}

// page stands for work that is worth to be remembered.
func page(item string) string { return fmt.Sprintf("a %s for %d €", item, 10*len(item)-1) }
