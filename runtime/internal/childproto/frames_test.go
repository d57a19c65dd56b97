package childproto

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/canary"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/supervisor"
)

// frameTest is a frame with a payload, and what decodes it.
type frameTest struct {
	kind   fdipc.Kind
	value  any
	decode func(*fdipc.Frame) (any, error)
}

func of[T any](kind fdipc.Kind, v T) frameTest {
	return frameTest{kind, v, func(f *fdipc.Frame) (any, error) { return Decode[T](f) }}
}

// frameTests has every own kind whose payload is JSON, with every field set.
var frameTests = map[string]frameTest{
	"hello": of(FrameHello, Hello{
		Protocol: Version, Role: RoleWorker, ID: 7, Path: "web", Function: "serve", Name: "web/1", Slot: 1, Generation: 2, Incarnation: 3,
		Tree: "a digest", Config: []byte{0, 0xff}, ConfigSize: 1 << 20, Drain: 9 * time.Second, OrphanDrain: time.Second, Requests: 1000,
		Restart: supervisor.Transient, HealthPath: "/healthz", HealthTimeout: 3 * time.Second, Timeouts: Timeouts{Soft: time.Second, Hard: time.Minute}, Figures: true,
	}),
	"ready":           of(FrameReady, struct{}{}),
	"stop":            of(FrameStop, StopRequest{Drain: 9 * time.Second, Idle: time.Second}),
	"exit notice":     of(FrameExitNotice, ExitNotice{NoticeError, "out of order", 3}),
	"link":            of(FrameLink, testSibling),
	"worker gone":     of(FrameWorkerGone, testSibling),
	"stop accepting":  of(FrameStopAccepting, StopAccepting{true}),
	"heartbeat":       of(FrameHeartbeat, HeartbeatFrame{1 << 63, "no database", 12, true, &canary.Figures{Requests: 3, Failed: 1, Latency: []uint64{0, 3}}}),
	"spare ready":     of(FrameSpareReady, struct{}{}),
	"assign":          of(FrameAssign, AssignFrame{"web/1", 1, 3, 1000}),
	"requests spent":  of(FrameRequestsSpent, struct{}{}),
	"stacks":          of(FrameStacks, StacksFrame{N: 4, Text: "goroutine 1 [running]:\n"}),
	"stop signal":     of(FrameStopSignal, StopSignalFrame{"SIGTERM"}),
	"link lost":       of(FrameLinkLost, LinkLostFrame{7, 9, true, "too many open files"}),
	"forced conns":    of(FrameForcedConns, ExitNotice{Forced: 3}),
	"declaration":     of(FrameDeclaration, DeclarationFrame{[]string{"web is Pool", "web Size 2"}}),
	"guard":           of(FrameGuard, GuardFrame{Pool: "web", Keys: []GuardedKey{{Key: []byte("GET /"), Refuse: true, Probe: 3, Worker: 4}}}),
	"guarded key":     of(FrameGuardedKey, GuardedKey{Key: []byte("GET /"), Answered: true, Refused: 4}),
	"hello, the zero": of(FrameHello, Hello{}),
}

var testSibling = Sibling{RoleListener, netactor.Worker{ID: 7, Name: "web/1", Pool: "web", Slot: 1, Generation: 2, Incarnation: 3}, 9}

// TestRoundTrip: each frame is decoded to what was encoded.
func TestRoundTrip(t *testing.T) {
	seen := map[fdipc.Kind]bool{FrameSpans: true, FrameMetrics: true} // of package otlp
	for name, tt := range frameTests {
		t.Run(name, func(t *testing.T) {
			f := NewFrame(tt.kind, tt.value)
			if err := WithinBounds(f); err != nil || f.Lane != fdipc.Control {
				t.Errorf("lane %v, bounds: %v", f.Lane, err)
			}
			got, err := tt.decode(f)
			if err != nil || !reflect.DeepEqual(got, tt.value) {
				t.Errorf("%+v, %v; want %+v", got, err, tt.value)
			}
		})
		seen[tt.kind] = true
	}
	for k := range 256 {
		if kind := fdipc.Kind(k); OwnKind(kind) != seen[kind] {
			t.Errorf("kind %#x is this package's: %v, tested: %v", k, OwnKind(kind), seen[kind])
		}
	}
}

// TestMalformed: a payload that is not the kind's is an error, and Handle does not call.
func TestMalformed(t *testing.T) {
	for name, payload := range map[string]string{
		"empty": "", "cut": `{"N":`, "another type": `[]`, "a field of another type": `{"N":"one"}`, "two values": `{}{}`, "negative": `{"N":-1}`,
	} {
		f := &fdipc.Frame{Kind: FrameHeartbeat, Payload: []byte(payload)}
		err := Handle(f, func(HeartbeatFrame) { t.Errorf("%s: it is handled", name) })
		if err == nil || !strings.Contains(err.Error(), "0x17") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestBounds: the longest texts that a child may send are within the bounds of their frame, and one
// that is much longer is not.
func TestBounds(t *testing.T) {
	text := strings.Repeat("\x01", supervisor.MaxText) // six bytes each in JSON
	for _, tt := range []struct {
		name string
		f    *fdipc.Frame
		ok   bool
	}{
		{"exit notice", NewFrame(FrameExitNotice, ExitNotice{Kind: NoticePanic, Text: PanicMark + text + "\n\n" + text}.Cut()), true},
		{"link lost", NewFrame(FrameLinkLost, LinkLostFrame{Why: text}), true},
		{"heartbeat", NewFrame(FrameHeartbeat, HeartbeatFrame{Unwell: text}), true},
		{"declaration", NewFrame(FrameDeclaration, DeclarationFrame{[]string{strings.Repeat("<", declaration.MaxText)}}), true},
		{"declaration too long", NewFrame(FrameDeclaration, DeclarationFrame{[]string{strings.Repeat("<", 2*declaration.MaxText)}}), false},
		{"too long", NewFrame(FrameHeartbeat, HeartbeatFrame{Unwell: strings.Repeat(text, 5)}), false},
		{"spans too long", &fdipc.Frame{Kind: FrameSpans, Payload: make([]byte, maxTelemetry+1)}, false},
	} {
		if err := WithinBounds(tt.f); (err == nil) != tt.ok {
			t.Errorf("%s, %d bytes: %v", tt.name, len(tt.f.Payload), err)
		}
	}
}

// FuzzDecode: no payload makes a decoder panic, and what is decoded survives another round.
func FuzzDecode(f *testing.F) {
	for _, tt := range frameTests {
		f.Add(NewFrame(tt.kind, tt.value).Payload)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		for name, tt := range frameTests {
			v, err := tt.decode(&fdipc.Frame{Kind: tt.kind, Payload: payload})
			if err != nil {
				continue
			}
			first := NewFrame(tt.kind, v)
			again, err := tt.decode(first)
			if err != nil || string(NewFrame(tt.kind, again).Payload) != string(first.Payload) {
				t.Errorf("%s: %+v, then %+v: %v", name, v, again, err)
			}
		}
	})
}

// TestCut: an exit notice is cut to its bounds, the value and the stack of a panic separately.
func TestCut(t *testing.T) {
	long := strings.Repeat("x", 2*supervisor.MaxText)
	short := supervisor.Cut(long)
	for _, tt := range []struct {
		name      string
		from, cut ExitNotice
	}{
		{"within the bounds", ExitNotice{NoticeError, "no", 3}, ExitNotice{NoticeError, "no", 3}},
		{"a long error", ExitNotice{Kind: NoticeError, Text: long}, ExitNotice{Kind: NoticeError, Text: short}},
		{"a long panic", ExitNotice{Kind: NoticePanic, Text: PanicMark + long + "\n\n" + long}, ExitNotice{Kind: NoticePanic, Text: PanicMark + short + "\n\n" + short}},
		{"counts that cannot be", ExitNotice{Forced: -1}, ExitNotice{}},
		{"too high a count", ExitNotice{Forced: 1 << 40}, ExitNotice{Forced: maxForced}},
	} {
		if got := tt.from.Cut(); got != tt.cut {
			t.Errorf("%s: %.100v, want %.100v", tt.name, got, tt.cut)
		}
	}
}
