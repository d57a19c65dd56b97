package coppice

import (
	"context"
	"testing"

	"github.com/coppice-go/coppice/runtime/internal/handover"
)

// TestFuncStates: what a Func has left last goes to one next run, and nothing of what it left in a
// run before; a state that is too long is an error, also for who stops it.
func TestFuncStates(t *testing.T) {
	s := &funcStates{runs: map[string]*funcRun{}, kept: map[string]*handover.FuncState{}}
	s.takeOver([]handover.FuncState{{Path: "a", Version: 3, State: []byte("before")}, {Path: "gone", Version: 1}})
	for i, tt := range []struct {
		has   string   // "" = nothing
		hands []string // one after the other
		kept  bool     // it was stopped for an upgrade
		fails bool
	}{
		{has: "before", hands: []string{"1", "2"}, kept: true},
		{has: "2", hands: []string{"lost"}},
		{kept: true},
		{hands: []string{"5", string(make([]byte, maxFuncState+1))}, kept: true, fails: true},
		{hands: []string{string(make([]byte, maxFuncState+1)), "6"}, kept: true},
		{has: "6"},
	} {
		var failed error
		err := s.run("a", func(ctx context.Context) error {
			version, state, ok := TakeOver(ctx)
			if string(state) != tt.has || ok != (tt.has != "") || ok && version != 3 {
				t.Errorf("%d: it takes over %q of version %d, %v", i, state, version, ok)
			}
			for _, h := range tt.hands {
				b := []byte(h)
				failed = HandOver(ctx, 3, b)
				clear(b) // they are the caller's
			}
			return failed
		})(t.Context())
		if (err != nil) != tt.fails {
			t.Errorf("%d: HandOver: %v", i, err)
		}
		if tt.kept {
			if err := s.keep("a"); (err != nil) != tt.fails {
				t.Errorf("%d: stopped for an upgrade: %v", i, err)
			}
		}
	}
	if all := s.all(); len(all) != 1 || all[0].Path != "gone" {
		t.Errorf("kept: %+v", all)
	}
	if err := HandOver(t.Context(), 1, nil); err == nil {
		t.Error("HandOver without a Func: no error")
	}
	if _, _, ok := TakeOver(t.Context()); ok {
		t.Error("TakeOver without a Func has something")
	}
}
