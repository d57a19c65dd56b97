package claims

import "testing"

// Exactly one side wins an offer, a stale one wins none, and only a claim is held until it is
// released.
func TestTable(t *testing.T) {
	tbl := New(make([]uint64, Len(2)))
	if !tbl.Magic() || tbl.Slots() != 2 || !Valid(int64(8*Len(2)), 2) || Valid(int64(8*Len(3)), 2) || Valid(int64(8*Len(2)+1), 2) {
		t.Fatal("not a table of two slots")
	}
	tbl.Store(1, Word(7, 0, Offered))
	if won, _ := tbl.Resolve(1, 6, 0, Claimed, 0); won {
		t.Error("a stale offer was claimed")
	}
	if won, _ := tbl.Resolve(1, 7, 0, Claimed, 99); !won || tbl.Time(1) != 99 {
		t.Errorf("claimed %v, at %d", won, tbl.Time(1))
	}
	if tbl.Swap(1, Word(7, 0, Offered), Word(7, 0, Revoked)) {
		t.Error("a claimed offer was revoked")
	}
	if won, _ := tbl.Resolve(1, 7, 3, Refused, 0); won || tbl.Beat() != 3 {
		t.Errorf("refused after the claim: %v; %d beats", won, tbl.Beat())
	}
	c := Place{tbl, 1, 7}
	if !c.Held() || (Place{}).Held() || (Place{tbl, 1, 6}).Held() {
		t.Error("the sender's copy")
	}
	Place{tbl, 1, 6}.Release()
	Place{}.Release()
	if c.Release(); c.Held() || tbl.Load(1) != Word(7, 0, Released) {
		t.Errorf("word %#x after the release", tbl.Load(1))
	}
	if reason, ok := Refusal(Word(8, 42, Refused), 8); !ok || reason != 42 {
		t.Errorf("refused with %d, %v", reason, ok)
	}
}

// The sender is woken by the attempt that it asked for, won or not.
func TestWake(t *testing.T) {
	tbl := New(make([]uint64, Len(1)))
	tbl.WakeAfter(2)
	for i, want := range []bool{false, true, false} {
		if _, wake := tbl.Resolve(0, 1, 0, Claimed, 0); wake != want {
			t.Errorf("attempt %d wakes: %v", i, wake)
		}
	}
}
