package fdipc

import "testing"

// TestTooBig: the error of a frame that is too big names its size and the limit.
func TestTooBig(t *testing.T) {
	for want, is := range map[string][2]int{
		"frame too big: a payload of 70 MiB, at most 64 MiB":           {70<<20 + 5, 64 << 20},
		"frame too big: a payload of 67108865 bytes, at most 67108864": {64<<20 + 1, 64 << 20},
		"frame too big: a payload of 1001 bytes, at most 1000 bytes":   {1001, 1000},
	} {
		if got := tooBig(is[0], is[1]).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
