package rules

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// play drives State as OTP's world is driven: what a fake does at once is told
// at once, the rest waits in a mailbox.
type play struct {
	s     *State
	now   Time
	plan  []byte
	next  int
	sync  []Event
	mail  []Event
	busy  bool
	down  bool
	inst  []pinst // by key
	trace []int
}

type pinst struct {
	run  uint64
	inc  int
	live bool
}

func (p *play) say(a ...int) { p.trace = append(p.trace, a...) }

func (p *play) at(k Key) *pinst {
	for len(p.inst) <= int(k) {
		p.inst = append(p.inst, pinst{})
	}
	return &p.inst[k]
}

func (p *play) step(ev Event) {
	p.sync = append(p.sync, ev)
	if p.busy {
		return
	}
	p.busy = true
	for i := 0; i < len(p.sync); i++ {
		for _, e := range p.s.Step(p.now, p.sync[i]) {
			p.effect(e)
		}
	}
	p.sync, p.busy = p.sync[:0], false
}

func (p *play) effect(e Effect) {
	switch e.Kind {
	case Start:
		p.next++
		ev := Event{Kind: Started, Key: e.Key, Run: e.Run}
		switch planned(p.plan, p.next) {
		case 0:
			in := p.at(e.Key)
			*in = pinst{run: e.Run, inc: in.inc + 1, live: true}
			p.say(tStart, int(e.Key), in.inc)
		case 1:
			ev.Kind = StartFailed
			p.say(tFail, int(e.Key))
		default:
			ev.Kind = Ignored
			p.say(tIgnored, int(e.Key))
		}
		p.sync = append(p.sync, ev)
	case StopInstance, KillInstance:
		in := p.at(e.Key)
		if in.live {
			in.live = false
			end := askedEnd(p.s.Children[e.Key].Params)
			p.say(tStop, int(e.Key), in.inc, int(end))
			p.sync = append(p.sync, Event{Kind: Exited, Key: e.Key, Run: e.Run, End: end})
		} else {
			// Dead already: its exit is in the mailbox, and found there.
			for i, ev := range p.mail {
				if ev.Kind == Exited && ev.Key == e.Key && ev.Run == e.Run {
					p.mail = slices.Delete(p.mail, i, i+1)
					p.sync = append(p.sync, ev)
					break
				}
			}
		}
	case SetTimer:
		if e.At > 0 && p.s.Children[e.Key].Phase == Waiting {
			p.mail = append(p.mail, Event{Kind: Timer, Key: e.Key})
		}
	case Answer:
		p.say(tAnswer, int(e.Reply))
	case Report:
		p.say(tReport, int(e.Context), int(e.Key))
	case Terminated:
		p.down = true
		p.say(tDown, int(e.Why))
	case Cancel, Abandon, Retry, Moved, Forget, Up:
	}
}

func (p *play) run() {
	for !p.down && len(p.mail) > 0 {
		ev := p.mail[0]
		p.mail = p.mail[1:]
		p.step(ev)
	}
}

func (p *play) snapshot() {
	o := &p.s.Order
	for i := o.Present.next(0); i >= 0; i = o.Present.next(i + 1) {
		c := p.s.Children[o.Keys[i]]
		st := undefined
		switch c.Phase {
		case Running:
			st = pid
		case Waiting:
			st = restarting
		case Down, Starting, Stopping:
		}
		p.say(tChild, int(c.Key), int(st), int(c.Inc))
	}
}

var ids = [...]string{"a", "b", "c", "d", "e", "f", "g", "h"}

// params reads a child from one byte.
func params(id string, b byte, auto AutoShutdown) Params {
	p := Params{ID: id, Restart: Restart(b & 3 % 3), Shutdown: time.Second, StartTimeout: time.Duration(b >> 2 & 3)}
	if b&16 != 0 {
		p.Shutdown = BrutalKill
	}
	p.Significant = b&32 != 0 && auto != Never && p.Restart != Permanent
	p.Supervisor = b&64 != 0
	return p
}

// against plays data on the rules and on the model, and reports the first
// difference.
//
// Byte 0: strategy, auto-shutdown and number of children; byte 1: intensity
// and period; then the children; then one byte for the length of the plan of
// start outcomes, and the plan; then two bytes an event.
func against(t testing.TB, data []byte) (steps int) {
	if len(data) < 4 {
		return 0
	}
	f := Flags{
		Strategy: Strategy(data[0] & 3), AutoShutdown: AutoShutdown(data[0] >> 2 & 3 % 3),
		Max: int(data[1] & 7), Period: time.Duration(1 + data[1]>>3),
	}
	n := int(data[0]>>4) & 7
	data = data[2:]
	var ps []Params
	for i := 0; i < n && len(data) > 0; i++ {
		ps = append(ps, params(ids[i], data[0], f.AutoShutdown))
		data = data[1:]
	}
	tmpl := Params{Shutdown: time.Second}
	if f.Strategy == Dynamic && len(ps) > 0 {
		tmpl = ps[0]
	}
	if f.Strategy == Dynamic {
		ps = nil
	}
	var plan []byte
	if len(data) > 0 {
		n := min(int(data[0]&15), len(data)-1)
		plan, data = data[1:1+n], data[1+n:]
	}
	m := &model{f: f, plan: plan, now: 1 << 30}
	p := &play{s: New(f, ps), plan: plan, now: 1 << 30}
	m.begin(ps)
	p.step(Event{Kind: Begin})
	m.run()
	p.run()
	compare(t, m, p, 0)
	for ; len(data) >= 2 && m.up; data = data[2:] {
		steps++
		a, b := data[0], data[1]
		key := Key(b&15) + 1
		switch a & 15 {
		case 0, 1, 2, 3:
			m.exit(key, Class(a>>4%5))
			p.exit(key, Class(a>>4%5))
		case 4, 5: // two at once
			other := Key(b>>4) + 1
			m.exit(key, Class(a>>4%5))
			p.exit(key, Class(a>>4%5))
			m.exit(other, Failed)
			p.exit(other, Failed)
		case 6:
			m.now += Time(b)
			p.now += Time(b)
		case 7: // a request is in the mailbox before the retries
			m.exit(key, Failed)
			p.exit(key, Failed)
			fallthrough
		case 8, 9, 10, 11, 12, 13:
			op := Op(a >> 4 & 3)
			par := params(ids[b&7], b, f.AutoShutdown)
			if f.Strategy == Dynamic {
				par = tmpl
			}
			if len(m.mailbox) > 0 { // the exit first, the retries after
				m.first()
				p.first()
			}
			if m.up {
				m.call(op, par, key-1)
				p.step(Event{Kind: Request, Call: Call{From: 1, Op: op, ID: par.ID, Key: key - 1, Params: par}})
			}
		case 14:
			p.step(Event{Kind: Exited, Key: 1 << 40, Run: 1}) // a stranger
		case 15:
			if b < 16 {
				m.down(ByOrder)
				p.step(Event{Kind: Stop})
			}
		}
		m.run()
		p.run()
		compare(t, m, p, steps)
	}
	return steps
}

// first takes the first message only.
func (m *model) first() {
	rest := m.mailbox[1:]
	m.mailbox = m.mailbox[:1:1]
	c := m.find(m.mailbox[0].key)
	msg := m.mailbox[0]
	m.mailbox = nil
	if c != nil && c.state == pid && c.dead && c.inc == msg.inc {
		m.doRestart(c)
	}
	m.mailbox = append(slices.Clone(rest), m.mailbox...)
}

func (p *play) first() {
	ev := p.mail[0]
	p.mail = p.mail[1:]
	p.step(ev)
}

func (p *play) exit(k Key, end Class) {
	if in := p.at(k); in.live {
		in.live = false
		p.say(tStop, int(k), in.inc, int(end))
		p.mail = append(p.mail, Event{Kind: Exited, Key: k, Run: in.run, End: end})
	}
}

func compare(t testing.TB, m *model, p *play, step int) {
	if m.up {
		m.snapshot()
		p.snapshot()
	}
	if m.up == p.down || !slices.Equal(m.trace, p.trace) {
		t.Fatalf("step %d:\n got %v\nwant %v", step, p.trace, m.trace)
	}
	m.trace, p.trace = m.trace[:0], p.trace[:0]
	if !p.down {
		p.s.check(t)
	}
}

// check compares the counters and the order with a recount.
func (s *State) check(t testing.TB) {
	var specs, live, supers, significant, active int
	for _, c := range s.Children {
		if !c.New {
			specs++
			if c.Supervisor {
				supers++
			}
		}
		if c.Phase == Running || c.Phase == Stopping {
			live++
		}
		if c.Phase != Down {
			active++
			if c.Significant {
				significant++
			}
		}
		if s.Order.Keys[c.Pos] != c.Key || !s.Order.Present.has(c.Pos) || s.Order.Active.has(c.Pos) != (c.Phase != Down) {
			t.Fatalf("child %d: order is wrong", c.Key)
		}
	}
	if specs != s.Specs || live != s.Live || supers != s.Supers || significant != s.Significant || len(s.Children) != s.Order.Count {
		t.Fatalf("counters are wrong: %d %d %d %d %d, recount %d %d %d %d %d",
			s.Specs, s.Live, s.Supers, s.Significant, s.Order.Count, specs, live, supers, significant, len(s.Children))
	}
}

// FuzzModel reads bytes as events and compares the rules with the slow model.
func FuzzModel(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 64 {
		f.Add(randomBytes(r, 16+r.IntN(80)))
	}
	f.Fuzz(func(t *testing.T, data []byte) { against(t, data) })
}

// TestModel plays random bytes against the slow model: COPPICE_MODEL_RUNS of
// them, 5,000 by default.
func TestModel(t *testing.T) {
	runs := modelRuns(t)
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	steps := 0
	for i := range runs {
		data := randomBytes(r, 8+r.IntN(100))
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("run %d of seed %d, data %#v", i, seed, data)
				}
			}()
			steps += against(t, data)
		}()
	}
	t.Logf("%d executions, %d events, 0 differences", runs, steps)
}

func modelRuns(t *testing.T) int {
	s := os.Getenv("COPPICE_MODEL_RUNS")
	if s == "" {
		return 5_000 // a -race run is to stay short
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("COPPICE_MODEL_RUNS: %v", err)
	}
	return n
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (b Bitset) has(i int) bool {
	return len(b) > 0 && i>>6 < len(b[0]) && b[0][i>>6]&(1<<(i&63)) != 0
}
