package inflight

import (
	"encoding/binary"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestClocks: a pause between the looks at two clocks is not taken for a difference of the clocks.
func TestClocks(t *testing.T) {
	start, clock, looks := time.Now(), time.Duration(0), 0
	at, began, err := bothClocks(func() time.Time { return start.Add(clock) }, func() (time.Duration, error) {
		m := time.Hour + clock
		if looks++; looks <= 2 {
			clock += time.Second // it stands still
		}
		return m, nil
	})
	if err != nil || at-time.Hour != began.Sub(start) || looks != 3 {
		t.Errorf("%v at %v, after %d looks, %v", at, began.Sub(start), looks, err)
	}
}

// TestTable: what has begun and not ended is read through another mapping of the file.
func TestTable(t *testing.T) {
	master, f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	worker, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	defer worker.Close()
	if err := f.Truncate(0); err == nil {
		t.Error("the file can be made shorter")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 1000 {
				n := worker.Begin([]byte("GET /innocent"), [16]byte{}, time.Now(), 0)
				if string(worker.Key(n)) != "GET /innocent" {
					t.Errorf("request %d is %q", n, worker.Key(n))
				}
				worker.End(n)
			}
		})
	}
	all.Wait()
	began := time.Unix(5, 6)
	worker.Begin([]byte("GET /poison"), [16]byte{7}, began, 0)
	got := master.Read()
	if len(got) != 1 || got[0] != (Served{"GET /poison", began, [16]byte{7}}) {
		t.Errorf("read %v", got)
	}
	for range Slots - 1 {
		if worker.Begin([]byte("x"), [16]byte{}, began, 0) == None {
			t.Fatal("the table is full too early")
		}
	}
	if n := worker.Begin([]byte("x"), [16]byte{}, began, 0); n != None {
		t.Errorf("request %d has a slot", n)
	}
	for n := range Slots { // what a worker may have written
		binary.NativeEndian.PutUint16(worker.mem[n*slotSize+4:], 0xffff)
	}
	for _, r := range master.Read() {
		if len(r.Key) > MaxKey {
			t.Fatalf("a key of %d bytes", len(r.Key))
		}
	}
	worker.End(0)
	allocs := testing.AllocsPerRun(100, func() {
		var b [MaxKey]byte
		worker.End(worker.Begin(AppendKey(b[:0], "GET", "/poison"), [16]byte{}, began, 0))
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// TestKey: a key is what it is of, and a long one differs by its hash.
func TestKey(t *testing.T) {
	key := func(method, path string) string { return string(AppendKey(make([]byte, 0, MaxKey), method, path)) }
	if got := key("GET", "/a b"); got != "GET /a b" {
		t.Error(got)
	}
	if got := key("", "tenant 7"); got != "tenant 7" {
		t.Error(got)
	}
	long := "/" + strings.Repeat("x", 300)
	one, two := key("GET", long+"1"), key("GET", long+"2")
	if one == two || len(one) != MaxKey || one[:MaxKey-17] != two[:MaxKey-17] {
		t.Errorf("%q\n%q", one, two)
	}
	if got := key(strings.Repeat("M", 4000), "/"); len(got) > MaxKey {
		t.Errorf("%d bytes", len(got))
	}
}
