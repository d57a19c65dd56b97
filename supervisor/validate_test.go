package supervisor

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestValidateReportsAllAtOnce(t *testing.T) {
	spec := Spec{
		Name: "app", Strategy: 9, AutoShutdown: 9, Leak: 9, OTP: true,
		Intensity: Intensity{Max: -1, Period: -time.Second},
		Backoff:   Backoff{Initial: 2 * time.Second, Max: time.Second, Factor: 0.5, Attempts: -1, ResetAfter: -1},
		Children: []ChildSpec{
			{},
			{ID: "a", Start: Func(nil)},
			{ID: "a", Start: StarterFunc(nil), Restart: 9, Type: 9, Shutdown: -4, StartTimeout: -1},
			{ID: "x/y", Start: Func(idle)},
			{ID: "s", Start: Spec{Children: []ChildSpec{
				{ID: "p", Start: Func(idle), Significant: true},
				{ID: "q", Start: Spec{Strategy: Dynamic, Backoff: Backoff{Factor: 2}}},
			}}},
		},
	}
	err := Validate(spec)
	want := []string{
		"app: Strategy = supervisor.Strategy(9)", "app: AutoShutdown", "app: Leak", "app: Intensity.Max = -1: must be at least 0",
		"app: Intensity.Period = -1s: must not be negative", "app: Backoff.ResetAfter", "app: Backoff.Factor = 0.5",
		"app: Backoff.Attempts = -1", "app: Backoff.Max = 1s: must not be less than Initial, 2s", "app: Backoff conflicts with OTP",
		"app/Children[0]: ID must be set", "app/Children[0]: Start must be set",
		"app/a: Start must be set", "app/a: Start must be set", "app/a: Restart", "app/a: Type", "app/a: Shutdown = -4ns",
		"app/a: StartTimeout = -1ns", "app/a: ID = a: is the ID of both Children[1] and Children[2]", `app/x/y: ID = x/y: must not contain "/"`,
		"app/s/p: Significant = true: conflicts with the supervisor's AutoShutdown never",
		"app/s/p: Significant = true: conflicts with Restart permanent",
		"app/s/q: Backoff.Initial must be set", "app/s/q: Children = 0: a dynamic supervisor needs exactly one",
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != len(want) {
		t.Errorf("%d faults, want %d", len(lines), len(want))
	}
	for i, w := range want {
		if i >= len(lines) || !strings.HasPrefix(lines[i], "supervisor: spec "+w) {
			t.Errorf("fault %d is %q, want %q", i, lines[min(i, len(lines)-1)], w)
		}
	}
	if _, err := Start(t.Context(), spec, quiet); err == nil {
		t.Error("started")
	} else if e, ok := errors.AsType[*SpecError](err); !ok || e.Path != "app" {
		t.Errorf("error %v", err)
	}
	if err := Validate(Spec{}); err != nil {
		t.Error(err)
	}
}

func TestCheckChildSpecs(t *testing.T) {
	ok := ChildSpec{ID: "a", Start: Func(idle), Restart: Transient, Significant: true}
	if err := CheckChildSpecs(AnySignificant, ok); err != nil {
		t.Error(err)
	}
	if err := CheckChildSpecs(Never, ok, ok); err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error %v", err)
	}
}
