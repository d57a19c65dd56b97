package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

// fakes are children that end when the test says so.
type fakes map[string]chan error

func (f fakes) child(id string) supervisor.ChildSpec {
	f[id] = make(chan error)
	return supervisor.ChildSpec{ID: id, Start: supervisor.Func(func(ctx context.Context) error {
		select {
		case err := <-f[id]:
			return err
		case <-ctx.Done():
			return nil
		}
	})}
}

func (f fakes) fail(id string) {
	f[id] <- errors.New("lost the connection")
	synctest.Wait() // until all is done that follows
}

func TestSupervision(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock goes on when all wait: an hour takes no time
		f := fakes{}
		s, err := supervisor.Start(t.Context(), supervisor.Spec{
			Strategy:  supervisor.RestForOne,
			Intensity: supervisor.Intensity{Max: 2, Period: time.Hour},
			Children:  []supervisor.ChildSpec{f.child("database"), f.child("cache")},
		}, supervisor.Config{Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		f.fail("database")
		if n := s.Snapshot().Children[1].Incarnation; n != 2 {
			t.Errorf("the cache has incarnation %d: it starts again with what it depends on", n)
		}
		time.Sleep(2 * time.Hour) // the failure no longer counts
		f.fail("cache")
		f.fail("cache")
		f.fail("cache")
		select {
		case <-s.Done():
		default:
			t.Error("three failures in an hour have not ended it")
		}
	})
}
