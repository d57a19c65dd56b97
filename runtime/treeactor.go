package coppice

import (
	"context"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// treeName is the master's actor that answers a treeRequest with the live Tree.
const treeName = "tree"

// treeRequest asks for the live tree.
type treeRequest struct{}

func init() {
	actors.RegisterType[treeRequest]("coppice.tree.request")
	actors.RegisterType[Tree]("coppice.tree")
}

// treeActor answers a treeRequest. Reading the tree never waits, so the actor never waits.
type treeActor struct{ snapshot func() Tree }

func (a treeActor) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(treeRequest); ok {
		ctx.Respond(a.snapshot())
	}
}

func askTree(ctx context.Context, s *actors.System) (Tree, error) {
	t, err := actors.Ask[Tree](ctx, s, s.Lookup(childproto.MasterName+"/"+treeName), treeRequest{})
	if err != nil {
		return Tree{}, fmt.Errorf("coppice: tree: %w", err)
	}
	return t, nil
}
