package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// The parts of a System, each without the others that it does not use.

func testProcess(address string) *localProcess {
	return &localProcess{address: address, log: slog.New(slog.DiscardHandler)}
}

// eventLog is the peerEvents of a test.
type eventLog struct{ list []string }

func (e *eventLog) handleFrame(*peer, *fdipc.Frame) bool  { return true }
func (e *eventLog) handlesLost(*peer, *fdipc.Frame)       {}
func (e *eventLog) hostChanged(string)                    {}
func (e *eventLog) needsLane(string) bool                 { return false }
func (e *eventLog) laneLeft(string)                       {}
func (*eventLog) clusterChanged(string, *actor.PID, byte) {}

func (e *eventLog) uplinkLost() { e.list = append(e.list, "uplink lost") }
func (e *eventLog) processEnded(address string, r supervisor.Reason) {
	e.list = append(e.list, fmt.Sprint(address, " ended: ", r))
}

func (e *eventLog) laneDropped(address string, r supervisor.Reason, _ bool) {
	e.list = append(e.list, fmt.Sprint(address, " dropped: ", r))
}

func (e *eventLog) want(t *testing.T, want ...string) {
	t.Helper()
	if !slices.Equal(e.list, want) {
		t.Errorf("events %q, want %q", e.list, want)
	}
	e.list = nil
}

// TestPeers: a later incarnation takes the place of an earlier one; the end of a process is known
// once and remembered; a child without its master gets no lanes.
func TestPeers(t *testing.T) {
	var events eventLog
	ps := newPeers(testProcess("1"), &events)
	up := &sink{}
	for _, row := range []struct {
		address     string
		incarnation uint64
		want        error
	}{{"0", 0, nil}, {"2", 5, nil}, {"2", 4, ErrStale}, {"2", 6, nil}, {"1", 0, ErrName}, {"a/b", 0, nil}, {"", 0, ErrName}} {
		if err := ps.attach(row.address, row.incarnation, up); !errors.Is(err, row.want) {
			t.Errorf("attach %q %d: %v, want %v", row.address, row.incarnation, err, row.want)
		}
	}
	events.want(t, "2 ended: error: stale incarnation")
	two := ps.find("2")
	if two == nil || two.incarnation != 6 || ps.find("2") != two {
		t.Fatalf("found %+v", two)
	}
	ps.detach(two, killed)
	ps.detach(two, killed)
	events.want(t, "2 ended: killed")
	if r, ended := ps.endedFor("2"); !ended || r.Kind != supervisor.Killed || ps.find("2") != nil {
		t.Errorf("ended %v: %v", ended, r)
	}
	ps.setUplink("0")
	if lane, err := ps.route("3"); err != nil || !lane.lane || !lane.pending() {
		t.Errorf("route to a sibling: %+v, %v", lane, err)
	}
	if _, err := ps.route("2"); !errors.Is(err, ErrDown) {
		t.Errorf("route to an ended sibling: %v", err)
	}
	ps.detach(ps.find("0"), shutdown)
	events.want(t, "0 ended: shutdown", "3 ended: shutdown", "uplink lost")
	if errs := ps.closeAll(t.Context()); errs != nil {
		t.Error(errs)
	}
}

// TestEndsAreToldToThoseThatTalk: the end of a child wakes those that have said something, or got a
// lane; others hear of it when they ask.
func TestEndsAreToldToThoseThatTalk(t *testing.T) {
	said := &sink{}
	child := quietSystem(t, Config{Address: "2"})
	_ = child.Attach("0", 0, said)
	child.Uplink("0")
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_, _ = child.Whereis(over, "n")
	master := quietSystem(t, Config{Address: "0"})
	to := map[string]*sink{}
	for _, address := range []string{"1", "2", "3", "4", "5"} {
		to[address] = &sink{}
		_ = master.Attach(address, 0, to[address])
	}
	for _, f := range said.list() {
		for address := range to {
			if f.Kind == wire.KindTypes || address == "2" { // all say that
				master.HandleFrame(address, &f)
			}
		}
	}
	master.peers.makeLane(master.peers.find("3"), "9", 0)
	master.Detach("5", killed)
	for address, want := range map[string]bool{"1": false, "2": true, "3": true, "4": false} {
		told := slices.ContainsFunc(to[address].list(), func(f fdipc.Frame) bool { return f.Kind == wire.KindProcessEnded })
		if told != want {
			t.Errorf("child %s is told: %v, want %v", address, told, want)
		}
	}
}

// noSurroundings is for actors that nothing asks.
type noSurroundings struct{}

func (noSurroundings) undeliverable(*actor.PID, any, *actor.PID, error) {}
func (noSurroundings) askOpen(*actor.PID) bool                          { return false }
func (noSurroundings) failAsk(*actor.PID, error)                        {}

func testActors(t *testing.T, stop func(from string)) *localActors {
	proc := testProcess("1")
	proto := newProtoSystem(proc)
	proto.setUp = func(*actor.ActorSystem) {}
	la := newLocalActors(proc, proto, noSurroundings{}, stop)
	t.Cleanup(func() {
		if errs := la.stopAll(context.Background()); errs != nil {
			t.Error(errs)
		}
	})
	return la
}

func silent() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) }

// TestLocalActors: an actor is found, watched and stopped by its id; a stop of the process goes to
// the hook; after refuse no actor is spawned.
func TestLocalActors(t *testing.T) {
	var stopped []string
	la := testActors(t, func(from string) { stopped = append(stopped, from) })
	inc, err := la.spawn(t.Context(), Spec{Name: "a", New: silent}, nil)
	if err != nil || la.find("a") != inc || !la.exists("a") || la.exists("b") {
		t.Fatalf("found %v, error %v", la.find("a"), err)
	}
	if _, err := la.spawn(t.Context(), Spec{Name: "a", New: silent}, nil); !errors.Is(err, ErrNameTaken) {
		t.Errorf("error %v, want ErrNameTaken", err)
	}
	end := make(chan supervisor.Reason, 1)
	if !la.watch("a", watchKey{ref: 1}, wire.StopShutdown, "1", func(r supervisor.Reason, how endCause) { end <- r }) {
		t.Fatal("not watched")
	}
	if r := <-end; r.Kind != supervisor.Shutdown {
		t.Errorf("reason %v", r)
	}
	if la.watch("b", watchKey{ref: 2}, wire.StopNormal, "1", func(supervisor.Reason, endCause) {}) {
		t.Error("an actor that does not exist is watched")
	}
	la.stop(processID, wire.StopNormal, "7")
	if !slices.Equal(stopped, []string{"7"}) {
		t.Errorf("stopped for %v", stopped)
	}
	if !la.refuse() || la.refuse() {
		t.Error("refused twice, or not")
	}
	if _, err := la.spawn(t.Context(), Spec{New: silent}, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("error %v, want ErrClosed", err)
	}
}

// TestMonitors: a monitor fires once, or not if it was cancelled before.
func TestMonitors(t *testing.T) {
	la := testActors(t, nil)
	if _, err := la.spawn(t.Context(), Spec{Name: "a", New: silent}, nil); err != nil {
		t.Fatal(err)
	}
	mons := newMonitors(la.localProcess, la, newPeers(la.localProcess, &eventLog{}), func(pid *actor.PID, f func(*actor.PID, error)) {
		if pid.Address == nameAddress {
			f(nil, ErrNoActor)
			return
		}
		f(pid, nil)
	})
	start := func(pid *actor.PID) *Monitor {
		c := make(chan Down, 1)
		m := &Monitor{C: c, c: c, table: mons, pid: pid}
		mons.start(m)
		return m
	}
	pid := actor.NewPID("1", "a")
	if d := <-start(actor.NewPID(nameAddress, "x")).C; !isNoActor(d.Reason) {
		t.Errorf("a name without a holder: %v", d.Reason)
	}
	one, two := start(pid), start(pid)
	two.Cancel()
	if n := mons.count(); n != 1 {
		t.Errorf("%d monitors, want 1", n)
	}
	if err := mons.stop(t.Context(), pid, wire.StopShutdown); err != nil {
		t.Error(err)
	}
	if d := <-one.C; d.Reason.Kind != supervisor.Shutdown || d.PID != pid {
		t.Errorf("down %v", d)
	}
	select {
	case d := <-two.C:
		t.Errorf("a cancelled monitor fired: %v", d)
	default:
	}
	if n := mons.count(); n != 0 {
		t.Errorf("%d monitors at the end", n)
	}
}

// TestNamesOfMaster: a name has one holder; it is free when the holder ends; the members of a pool
// are the processes with a name in it, in the order of their slots.
func TestNamesOfMaster(t *testing.T) {
	la := testActors(t, nil)
	ps := newPeers(la.localProcess, &eventLog{})
	mons := newMonitors(la.localProcess, la, ps, func(pid *actor.PID, f func(*actor.PID, error)) { f(pid, nil) })
	n := newNames(la.localProcess, la, ps, mons, newAskTable("1", nil), func(name string) bool { return name == "reserved" })
	for _, id := range []string{"a", "b"} {
		if _, err := la.spawn(t.Context(), Spec{Name: id, New: silent}, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []string{"7", "8"} {
		if err := ps.attach(a, 0, &sink{}); err != nil {
			t.Fatal(err)
		}
	}
	a, b := actor.NewPID("1", "a"), actor.NewPID("1", "b")
	for _, row := range []struct {
		op   byte
		name string
		pid  *actor.PID
		from string
		want error
	}{
		{nameRegister, "n", a, "1", nil},
		{nameRegister, "n", a, "1", nil}, // again
		{nameRegister, "n", b, "1", ErrNameTaken},
		{nameRegister, "n", b, "7", ErrName}, // not an actor of that process
		{nameRegister, "reserved", actor.NewPID("7", "x"), "7", ErrReserved},
		{nameRegister, "a", actor.NewPID("7", "x"), "7", ErrReserved}, // the name of the master's actor
		{nameReregister, "n", b, "1", nil},
		{nameUnregister, "n", a, "1", nil}, // it has not the name: nothing happens
		{nameWhereis, "n", nil, "1", nil},
		{nameWhereis, "none", nil, "1", ErrNoActor},
		{nameRegister, "pool/10", ProcessPID("7"), "1", nil},
		{nameRegister, "pool/9", ProcessPID("8"), "1", nil},
		{99, "n", nil, "1", ErrMalformed},
	} {
		n.do(row.op, row.name, row.pid, row.from, func(_ any, err error) {
			if !errors.Is(err, row.want) {
				t.Errorf("operation %d on %q: %v, want %v", row.op, row.name, err, row.want)
			}
		})
	}
	if h := n.whereis("n"); !h.Equal(b) {
		t.Errorf("the holder is %v", h)
	}
	if m := n.members("pool"); len(m) != 2 || m[0].address != "8" || m[1].address != "7" {
		t.Errorf("members %v", m)
	}
	if h := n.whereis("pool/9/cache"); !h.Equal(actor.NewPID("8", "cache")) {
		t.Errorf("an actor below a process's name is %v", h)
	}
	if err := mons.stop(t.Context(), b, wire.StopShutdown); err != nil {
		t.Fatal(err)
	}
	await(t, "the name is free", func() bool { return n.whereis("n") == nil })
}

// TestDeadLetters: the total counts all, the list keeps the latest, oldest first.
func TestDeadLetters(t *testing.T) {
	var hooked int
	d := &deadLetters{proc: testProcess("1"), limit: 3, hook: func(DeadLetter) { hooked++; panic("hook") }}
	for i := range 5 {
		d.record(newDeadLetter(actor.NewPID("1", fmt.Sprint(i)), i, nil, ErrNoActor))
	}
	total, latest := d.latest()
	var ids []string
	for _, l := range latest {
		ids = append(ids, l.Target.Id)
	}
	if total != 5 || hooked != 5 || !slices.Equal(ids, []string{"2", "3", "4"}) {
		t.Errorf("total %d, hooked %d, latest %v", total, hooked, ids)
	}
}
