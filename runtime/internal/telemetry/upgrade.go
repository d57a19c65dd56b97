package telemetry

import (
	"context"
	"time"

	"github.com/coppice-go/coppice/tracing"
)

// An Upgrade is what an upgrade of the program has done so far. It goes through the exec as data,
// because only the image that comes to its end knows how long its spans last. A step begins where
// the one before it ended.
type Upgrade struct {
	Began time.Time
	Steps []Step
	Under []byte // carrier of the upgrade that this one takes back; empty if it takes none back
}

// A Step is a step that has ended well.
type Step struct {
	Name  string // of the span
	Ended time.Time
}

// Ended notes that a step has ended.
func (u *Upgrade) Ended(step string, at time.Time) { u.Steps = append(u.Steps, Step{step, at}) }

// UpgradeSpans are the spans of an upgrade that comes to its end in this image. Nil does nothing.
type UpgradeSpans struct {
	step  *Operation // that is under way
	whole tracing.Span
}

// BeginUpgrade makes the spans of u: those of the steps that have ended, of the one that is under
// way, and of the whole. The caller ends the last two.
func (l *Lifecycle) BeginUpgrade(u Upgrade, step string) *UpgradeSpans {
	if l == nil {
		return nil
	}
	name, at := tracing.SpanUpgrade, u.Began
	if len(u.Under) > 0 {
		name = tracing.SpanRollBack
	}
	of := tracing.LifecycleSpan{At: at}
	copy(of.Remote[:], u.Under)
	whole := l.tracer.Begin(name, of)
	for _, s := range u.Steps {
		l.begin(s.Name, "", at, whole, nil).EndAt(s.Ended, "", "")
		at = s.Ended
	}
	return &UpgradeSpans{l.add(&Operation{l: l, name: step, began: at, span: l.begin(step, "", at, whole, nil)}), whole}
}

// Step returns the operation of the step that is under way.
func (s *UpgradeSpans) Step() *Operation {
	if s == nil {
		return nil
	}
	return s.step
}

// Carrier returns what makes the whole the parent of a span of another image.
func (s *UpgradeSpans) Carrier() []byte {
	if s == nil {
		return nil
	}
	c := s.whole.Carrier()
	return c[:]
}

// End ends the spans, as failed in the step that is under way unless err is nil.
func (s *UpgradeSpans) End(err error) { s.endAt(time.Now(), err) }

// EndBack ends the spans for err, for which the step ended at a time in another image. Since then
// this one, of the program of before, has taken its children back.
func (s *UpgradeSpans) EndBack(over time.Time, err error) {
	if s != nil {
		s.step.l.begin(tracing.SpanRollBack, "", over, s.whole, nil).End()
		s.endAt(over, err)
	}
}

func (s *UpgradeSpans) endAt(over time.Time, err error) {
	if s == nil {
		return
	}
	errType, text := "", ""
	if err != nil {
		errType, text = s.step.name, err.Error()
	}
	l := s.step.l
	l.mu.Lock()
	s.step.ended = over
	l.mu.Unlock()
	s.step.span.EndAt(over, errType, text)
	s.whole.EndAt(time.Time{}, errType, text)
}

// Send waits until the spans that have ended are sent, or ctx ends: the image is about to end.
func (l *Lifecycle) Send(ctx context.Context) error {
	if l == nil {
		return nil
	}
	if p, can := l.provider.(interface{ ForceFlush(context.Context) error }); can {
		return p.ForceFlush(ctx)
	}
	return nil
}
