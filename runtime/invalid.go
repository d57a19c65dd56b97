package coppice

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coppice-go/coppice/supervisor"
)

// maxPool bounds Pool.Size: far above what one machine runs well, far below what a typing error
// costs.
const maxPool = 4096

// maxName bounds the name of a child in bytes. Registered names are made from it.
const maxName = 64

// maxSignal is the highest signal of Linux.
const maxSignal = 64

// notInName reports whether r has a meaning for the tree or for the actors' names.
func notInName(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError || strings.ContainsRune("/@$", r)
}

type reportInvalid func(path, field string, value any, why string)

// checkStrategy checks what supervisor would refuse later, at a path that the user has not written.
func checkStrategy(bad reportInvalid, path string, s supervisor.Strategy, i supervisor.Intensity) {
	switch {
	case s == supervisor.Dynamic:
		bad(path, "Strategy", s, "is of package supervisor alone: Runtime.StartChild adds children under each strategy")
	case s > supervisor.RestForOne:
		bad(path, "Strategy", s, "is none of one_for_one, one_for_all, rest_for_one")
	}
	if i.Max < 0 || i.Period < 0 || i.Max > 0 && i.Period == 0 {
		bad(path, "Intensity", i, "needs a Max of at least 0 and a Period above 0")
	}
}

func checkRestart(bad reportInvalid, path string, r supervisor.Restart) {
	if r > supervisor.Temporary {
		bad(path, "Restart", r, "is none of permanent, transient, temporary")
	}
}

func checkExitCodes(bad reportInvalid, path string, codes []int) {
	for _, c := range codes {
		if c < 0 || c > 255 {
			bad(path, "SuccessExit", c, "is not between 0 and 255")
		}
	}
}

func notNil(bad reportInvalid, path, field string, isNil bool) {
	if isNil {
		bad(path, field, nil, "is nil")
	}
}

func notNegative(bad reportInvalid, path, field string, d time.Duration) {
	if d < 0 {
		bad(path, field, d, "is negative")
	}
}
