package pool

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// sample is a pool with two slots, of which one is due, a spare, and a worker that drains.
func sample(t testing.TB) (*State, []byte) {
	s := New(Config{Surge: 1, Spares: 1, Draining: 4, Recycling: 1, Retry: time.Second, MaxRetry: time.Minute}, 1)
	for _, ev := range []Event{
		{Kind: Start, Slot: 0},
		{Kind: Start, Slot: 1},
		{Kind: Ready, Worker: 1},
		{Kind: Ready, Worker: 2},
		{Kind: Warmed, Worker: 3},
		{Kind: Due, Worker: 1, Once: true},
		{Kind: Ready, Worker: 3},
		{Kind: Warmed, Worker: 4},
		{Kind: Suspend},
		{Kind: Due, Worker: 2},
	} {
		s.Step(time.Second, ev)
	}
	b, err := s.Save(time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return s, b
}

// TestSaved compares a saved pool with testdata/saved.diag.
func TestSaved(t *testing.T) {
	_, b := sample(t)
	got, err := cbor.Diagnose(b)
	if err != nil {
		t.Fatal(err)
	}
	got = strings.ReplaceAll(got, "{", "\n{") + "\n"
	const file = "testdata/saved.diag"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != got {
		t.Errorf("%v; -rewrite, and read the difference. It is%s", err, got)
	}
}

// TestUnderWay: each of these has to be over before a pool is saved; suspended, it begins nothing.
func TestUnderWay(t *testing.T) {
	for _, tt := range []struct {
		want   string
		events []Event
	}{
		{"", nil},
		{"a reload is under way", []Event{{Kind: Roll, Gen: 2}}},
		{"a reload is under way", []Event{{Kind: Suspend}, {Kind: Roll, Gen: 2}}},
		{"the pool is being scaled", []Event{{Kind: Scale, Size: 3}}},
		{"slot 0 is being stopped", []Event{{Kind: StopSlot, Slot: 0}}},
		{"slot 2 is being started", []Event{{Kind: Start, Slot: 2}}},
		{"the worker of slot 0 is being replaced", []Event{{Kind: Due, Worker: 3}}},
		{"worker 5 is being started", []Event{{Kind: Ended, Worker: 4}, {Kind: Tick}}},
		{"", []Event{{Kind: Suspend}, {Kind: Due, Worker: 3}, {Kind: Ended, Worker: 4}, {Kind: Tick}}},
		{"the pool stops", []Event{{Kind: Stop}}},
	} {
		s, b := sample(t)
		s, _, err := Restore(b, s.cfg)
		if err != nil {
			t.Fatal(err)
		}
		s.slots[1].due = false
		s.Step(time.Second, Event{Kind: Resume})
		for i, ev := range tt.events {
			s.Step(time.Duration(i+1)*time.Minute, ev)
		}
		if got := s.UnderWay(); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.events, got, tt.want)
		}
	}
}

// FuzzRestore: bytes that no Save returned are an error, or a pool that saves itself.
func FuzzRestore(f *testing.F) {
	_, b := sample(f)
	f.Add(b)
	f.Add(bytes.Replace(b, []byte("Slots"), []byte("Slotz"), 1)) // a field that is not known, and one that is missing
	f.Fuzz(func(t *testing.T, b []byte) {
		s, began, err := Restore(b, Config{Surge: 1, Spares: 1, Draining: 1, Recycling: 1, Retry: time.Second, MaxRetry: time.Minute})
		if err != nil {
			return
		}
		if _, err := s.Save(began); err != nil {
			t.Error(err)
		}
		for _, ev := range []Event{{Kind: Resume}, {Kind: Tick}, {Kind: Roll, Gen: 9}, {Kind: Stop}, {Kind: KillAll}} {
			s.Step(time.Hour, ev)
		}
	})
}
