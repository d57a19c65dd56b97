package main

import "strings"

// difference returns the lines that only one of two descriptions has, those of a with a minus, then
// those of b with a plus. Each line of a description says the whole path: their order says nothing.
func difference(a, b string) (lines []string) {
	only := func(a, b, sign string) {
		count := map[string]int{}
		for l := range strings.Lines(b) {
			count[strings.TrimSpace(l)]++
		}
		for l := range strings.Lines(a) {
			if l = strings.TrimSpace(l); l == "" {
				continue
			}
			if count[l]--; count[l] < 0 {
				lines = append(lines, sign+clean(l))
			}
		}
	}
	only(a, b, "-")
	only(b, a, "+")
	return lines
}
