package actors

import (
	"bytes"
	"context"
	"encoding/hex"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/fxamacker/cbor/v2"
)

var rewrite = flag.Bool("rewrite", false, "write the golden state anew")

// fullState has a value in each field, also of the structs in it.
func fullState() *systemState {
	message, _ := new(codec.MessageWriter).Append(wire.AppendPID(wire.AppendPID(nil, actor.NewPID("0", "a")), actor.NewPID("1", "b")), "hello")
	return &systemState{
		Format: stateFormat, Reads: stateReads,
		Address: "0", Incarnation: 1, LastID: 2, LastAsk: 3, LastMonitor: 4, LastChange: 5, LastLane: 6,
		Peers: map[string]*peerState{"1": {
			Incarnation: 7,
			Types:       []byte{0},
			Notices:     []frameState{{Kind: uint8(wire.KindFailed), Lane: uint8(fdipc.Data), Flags: 1, Trace: bytes.Repeat([]byte{8}, 26), Payload: []byte{9}}},
			Lanes:       map[string]uint64{"2": 6},
			Caches:      []string{"name", "pool/*"},
			Monitors:    map[uint64]string{10: "a"},
			Asks:        []*actor.PID{{Address: "1", Id: askID, RequestId: 11}},
			Asked:       []uint32{3},
		}},
		Ended:    []endedState{{"3", appendReason(nil, errorReason(ErrBusy))}},
		Names:    map[string]nameState{"name": {actor.NewPID("1", "b"), 1}},
		Monitors: map[uint64]monitorState{2: {actor.NewPID(nameAddress, "name"), actor.NewPID("1", "b"), "a", true}},
		Actors: map[string]*actorState{"a": {
			Handover: &Handover{Version: 13, State: []byte("state"), Asks: []*actor.PID{{Address: "1", Id: askID, RequestId: 11}}},
			Messages: []frameState{
				{Kind: uint8(wire.KindUser), Lane: uint8(fdipc.Data), Flags: wire.FlagSender, Payload: message},
				{Lost: "chan int"},
			},
		}},
	}
}

// TestStateGolden: the state is encoded as before. A change is one of the format: an older program
// must be able to read it, or the header of the whole must say that it cannot.
func TestStateGolden(t *testing.T) {
	b, err := codec.EncodeState(fullState())
	if err != nil {
		t.Fatal(err)
	}
	text, err := cbor.Diagnose(b)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.NewReplacer("}, ", "},\n", "], ", "],\n").Replace(text)
	got := fmt.Sprintf("%s\n\n%s\n", text, hex.EncodeToString(b))
	const file = "testdata/state.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("it is encoded otherwise; read the difference, then: go test ./actors -run TestStateGolden -rewrite\n%s", got)
	}
	_, encoded, _ := strings.Cut(strings.TrimSpace(string(want)), "\n\n")
	old, err := hex.DecodeString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	st, err := decodeState(old)
	if err != nil || !reflect.DeepEqual(st.Peers["1"], fullState().Peers["1"]) || !reflect.DeepEqual(st.Names, fullState().Names) {
		t.Errorf("error %v, decoded %+v", err, st)
	}
	if again, err := codec.EncodeState(st); err != nil || !bytes.Equal(again, old) {
		t.Errorf("error %v; encoded again it differs", err)
	}
}

// TestStateOfOtherVersion: fields that are not known are skipped, those that miss are zero.
func TestStateOfOtherVersion(t *testing.T) {
	b, err := codec.EncodeState(map[string]any{
		"Format": stateFormat + 1, "Reads": stateFormat, "Address": "0", "Later": map[string]any{"x": []int{1}},
		"Peers": map[string]any{"1": map[string]any{"Incarnation": 7, "Later": "x"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Restore(Config{Address: "0", Logger: slog.New(slog.DiscardHandler)}, b)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(context.Background()) }()
	if p := s.peers.find("1"); p == nil || p.incarnation != 7 {
		t.Errorf("%+v", p)
	}
}

// TestRestoreErrors: what makes no sense is named.
func TestRestoreErrors(t *testing.T) {
	for field, change := range map[string]func(st *systemState){
		"address":     func(st *systemState) { st.Address = "1" },
		"format":      func(st *systemState) { st.Reads = stateFormat + 1 },
		"incarnation": func(st *systemState) { st.Incarnation = 2 },
		"peers: address": func(st *systemState) {
			st.Peers["0"] = st.Peers["1"]
		},
		"ended: reason": func(st *systemState) { st.Ended[0].Reason = nil },
		"asks":          func(st *systemState) { st.Peers["1"].Asks[0] = nil },
		"lane":          func(st *systemState) { st.Peers["1"].Notices[0].Lane = 2 },
		"types":         func(st *systemState) { st.Peers["1"].Types = []byte{1} },
		"names: pid":    func(st *systemState) { st.Names["x"] = nameState{} },
		"monitors: pid": func(st *systemState) { st.Monitors[9] = monitorState{PID: actor.NewPID("1", "b")} },
		"actors: asks":  func(st *systemState) { st.Actors["a"].Handover.Asks[0] = nil },
	} {
		st := fullState()
		change(st)
		b, err := codec.EncodeState(st)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(Config{Address: "0", Incarnation: 1}, b); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: error %v", field, err)
		}
	}
	if _, err := Restore(Config{Address: "0"}, []byte{0xa1, 0x65, 'P', 'e', 'e', 'r', 's', 0x01}); err == nil || !strings.Contains(err.Error(), "Peers") {
		t.Errorf("error %v", err)
	}
}

// takesOver takes over from any predecessor.
type takesOver struct{}

func (takesOver) Receive(actor.Context)                        {}
func (takesOver) HandOver(actor.Context) (Handover, error)     { return Handover{}, nil }
func (takesOver) TakeOver(actor.Context, Handover) (err error) { return nil }

// FuzzRestore: no bytes make Restore or what follows it panic, hang, or take much memory.
func FuzzRestore(f *testing.F) {
	b, err := codec.EncodeState(fullState())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xa0})
	f.Add(b[:len(b)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		cfg := Config{Address: "0", Incarnation: 1, Logger: slog.New(slog.DiscardHandler)}
		s, err := Restore(cfg, b)
		if err != nil {
			return
		}
		defer func() { _ = s.Shutdown(context.Background()) }()
		for _, p := range s.peers.all() {
			if err := s.Attach(p.address, p.incarnation, discard{}); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.restored.Actors) > 0 {
			if _, err := s.Spawn(t.Context(), "a", func() actor.Actor { return takesOver{} }); err != nil {
				t.Fatal(err)
			}
		}
		s.Resume()
		state, err := s.Suspend(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		again, err := Restore(cfg, state)
		if err != nil {
			t.Fatalf("what it made of it cannot be restored: %v", err)
		}
		_ = again.Shutdown(context.Background())
	})
}
