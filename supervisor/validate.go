package supervisor

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// Validate checks a spec and everything below it, and returns all faults at
// once: nil, or *SpecError values joined, each naming its path in the tree.
func Validate(s Spec) error {
	var v validator
	v.spec(cmp.Or(s.Name, defaultName), s)
	return errors.Join(v.errs...)
}

// CheckChildSpecs checks child specs as they would be for a supervisor with
// this auto-shutdown, without a supervisor: OTP's check_childspecs.
func CheckChildSpecs(auto AutoShutdown, children ...ChildSpec) error {
	var v validator
	v.children("", auto, children)
	return errors.Join(v.errs...)
}

const defaultName = "root"

type validator struct{ errs []error }

func (v *validator) add(path, field string, value any, format string, a ...any) {
	v.errs = append(v.errs, &SpecError{Path: path, Field: field, Value: value, Msg: fmt.Sprintf(format, a...)})
}

func (v *validator) spec(path string, s Spec) {
	if strings.Contains(s.Name, "/") {
		v.add(path, "Name", s.Name, `must not contain "/"`)
	}
	if s.Strategy > Dynamic {
		v.add(path, "Strategy", s.Strategy, "is not a strategy")
	}
	if s.AutoShutdown > AllSignificant {
		v.add(path, "AutoShutdown", s.AutoShutdown, "is not an auto-shutdown")
	}
	if s.Leak > LeakGiveUp {
		v.add(path, "Leak", s.Leak, "is not a leak policy")
	}
	if s.Intensity.Max < 0 {
		v.add(path, "Intensity.Max", s.Intensity.Max, "must be at least 0")
	}
	v.positive(path, "Intensity.Period", s.Intensity.Period)
	v.backoff(path, s)
	if s.Strategy == Dynamic && len(s.Children) != 1 {
		v.add(path, "Children", len(s.Children), "a dynamic supervisor needs exactly one child spec, the template")
	}
	v.children(path, s.AutoShutdown, s.Children)
}

func (v *validator) backoff(path string, s Spec) {
	b := s.Backoff
	v.positive(path, "Backoff.Initial", b.Initial)
	v.positive(path, "Backoff.Max", b.Max)
	v.positive(path, "Backoff.ResetAfter", b.ResetAfter)
	if b.Factor != 0 && !(b.Factor >= 1) || math.IsInf(b.Factor, 0) {
		v.add(path, "Backoff.Factor", b.Factor, "must be at least 1")
	}
	if b.Attempts < 0 {
		v.add(path, "Backoff.Attempts", b.Attempts, "must be at least 0")
	}
	if b.Max > 0 && b.Max < b.Initial {
		v.add(path, "Backoff.Max", b.Max, "must not be less than Initial, %v", b.Initial)
	}
	if b.Initial == 0 && b != (Backoff{}) {
		v.add(path, "Backoff.Initial", nil, "must be set when another field of Backoff is")
	}
	if s.OTP && s.StopTogether {
		v.add(path, "StopTogether", s.StopTogether, "conflicts with OTP, which stops in reverse order")
	}
	switch {
	case s.StartTogether < 0:
		v.add(path, "StartTogether", s.StartTogether, "must be at least 0")
	case s.StartTogether > 1 && s.Strategy != OneForOne:
		v.add(path, "StartTogether", s.StartTogether, "is for OneForOne, not for %v", s.Strategy)
	case s.StartTogether > 1 && s.OTP:
		v.add(path, "StartTogether", s.StartTogether, "conflicts with OTP, which starts one after the other")
	}
	if s.Persist && b.Initial == 0 {
		v.add(path, "Persist", nil, "needs a Backoff: without a budget nothing else holds a crash loop back")
	}
	if s.Persist && s.Strategy != OneForOne {
		v.add(path, "Persist", nil, "is for OneForOne, not for %v", s.Strategy)
	}
	if s.OTP && s.Persist {
		v.add(path, "Persist", nil, "conflicts with OTP, which gives up")
	}
	if s.OTP && b != (Backoff{}) {
		v.add(path, "Backoff", nil, "conflicts with OTP, which restarts at once")
	}
}

func (v *validator) children(path string, auto AutoShutdown, children []ChildSpec) {
	seen := make(map[string]int, len(children))
	for i, c := range children {
		at := fmt.Sprintf("Children[%d]", i)
		if c.ID != "" {
			at = c.ID
		}
		if path != "" {
			at = path + "/" + at
		}
		v.child(at, auto, c)
		if first, dup := seen[c.ID]; dup && c.ID != "" {
			v.add(at, "ID", c.ID, "is the ID of both Children[%d] and Children[%d]", first, i)
		} else {
			seen[c.ID] = i
		}
	}
}

func (v *validator) child(path string, auto AutoShutdown, c ChildSpec) {
	switch {
	case c.ID == "":
		v.add(path, "ID", nil, "must be set")
	case strings.Contains(c.ID, "/"):
		v.add(path, "ID", c.ID, `must not contain "/"`)
	}
	if isNil(c.Start) {
		v.add(path, "Start", nil, "must be set")
	}
	if c.Restart > Temporary {
		v.add(path, "Restart", c.Restart, "is not a restart type")
	}
	if c.Type > TypeSupervisor {
		v.add(path, "Type", c.Type, "is not a child type")
	}
	if c.Shutdown < Immediately {
		v.add(path, "Shutdown", c.Shutdown, "must be at least 0, or BrutalKill, Infinity or Immediately")
	}
	v.positive(path, "StartTimeout", c.StartTimeout)
	if c.Significant && auto == Never {
		v.add(path, "Significant", true, "conflicts with the supervisor's AutoShutdown never")
	}
	if c.Significant && c.Restart == Permanent {
		v.add(path, "Significant", true, "conflicts with Restart permanent")
	}
	if s, ok := c.Start.(Spec); ok {
		v.spec(path, s)
	}
}

func (v *validator) positive(path, field string, d time.Duration) {
	if d < 0 {
		v.add(path, field, d, "must not be negative")
	}
}

// isNil catches the nil functions that are not nil as a Starter.
func isNil(s Starter) bool {
	switch s := s.(type) {
	case nil:
		return true
	case StarterFunc:
		return s == nil
	case *funcStarter:
		return s.run == nil
	default:
		return false
	}
}
