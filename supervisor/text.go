package supervisor

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxText is the limit, in bytes, of a text from a child, a file or the network that is
// logged, kept or sent on: see [Cut].
const MaxText = 4096

// Cut returns text if it is at most MaxText long, else its beginning and a mark with the
// whole length, in MaxText bytes: "… (cut, 5242880 bytes)". It cuts between characters and
// keeps none of text's memory. A text that Cut has returned is returned unchanged.
func Cut(text string) string {
	if len(text) <= MaxText {
		return text
	}
	whole := len(text)
	if i := strings.LastIndex(text, cutMark); i >= 0 { // text wraps one that was cut: keep the length that its mark has
		var n int
		if _, err := fmt.Sscanf(text[i+len(cutMark):], "%d bytes)", &n); err == nil && len(text)-i <= maxMark {
			whole = max(whole, n)
		}
	}
	mark := fmt.Sprintf("%s%d bytes)", cutMark, whole)
	n := MaxText - len(mark)
	for back := 0; back < utf8.UTFMax && n > 0 && !utf8.RuneStart(text[n]); back++ {
		n--
	}
	return text[:n] + mark
}

const (
	cutMark = "… (cut, "
	maxMark = len(cutMark) + len("9223372036854775807 bytes)")
)
