package coppice

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// A StopStep is one thing that the master did to end a process.
type StopStep struct {
	What  string        // "asked by frame", or the signal's name: SIGTERM
	After time.Duration // since the first step
}

// String returns one line.
func (s StopStep) String() string {
	if s.After == 0 {
		return s.What
	}
	return fmt.Sprintf("%s after %v", s.What, s.After.Round(time.Millisecond))
}

// stopping is the record of a process's stop. Safe for concurrent use.
type stopping struct {
	log  *slog.Logger
	name func() string // at present: a spare's changes
	pid  int

	mu    sync.Mutex
	began time.Time // of the first step
	taken []StopStep
}

// toItsGroup ends the name of a signal for the processes that one has left behind.
const toItsGroup = " to its group"

// step notes and logs a step; a repeated one is ignored. The first step of a stop is logged at
// level Debug, later ones at Info, and a kill of the process at Warn.
func (s *stopping) step(what string) {
	s.mu.Lock()
	for _, t := range s.taken {
		if t.What == what {
			s.mu.Unlock()
			return
		}
	}
	level, now := slog.LevelDebug, time.Now()
	if len(s.taken) == 0 {
		s.began = now
	} else {
		level = slog.LevelInfo
	}
	switch {
	case strings.HasSuffix(what, toItsGroup): // the processes that it left behind are ended as a rule
		level = slog.LevelDebug
	case strings.HasPrefix(what, "SIGKILL"):
		level = slog.LevelWarn
	}
	t := StopStep{what, now.Sub(s.began)}
	s.taken = append(s.taken, t)
	s.mu.Unlock()
	s.log.LogAttrs(context.Background(), level, "stopping",
		slog.String("name", s.name()), slog.Int("pid", s.pid), slog.String("step", what), slog.Duration("after", t.After))
}

// steps returns the steps so far.
func (s *stopping) steps() []StopStep {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]StopStep(nil), s.taken...)
}

// ended logs how long the stop took, if it took more than one step.
func (s *stopping) ended() {
	steps := s.steps()
	if len(steps) < 2 {
		return
	}
	var text []string
	for _, t := range steps {
		text = append(text, t.String())
	}
	s.log.LogAttrs(context.Background(), slog.LevelInfo, "stopped",
		slog.String("name", s.name()), slog.Int("pid", s.pid), slog.Duration("took", time.Since(s.began)), slog.String("steps", strings.Join(text, ", ")))
}
