package supervisor

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxText bounds each text that comes from a child, a file or the network, in bytes,
// where it is logged, kept or sent on: see [Cut].
const MaxText = 4096

// Cut returns text, or, of one that is longer than MaxText, its beginning and a mark
// that says how long it was, within MaxText: "… (cut, 5242880 bytes)". It cuts between
// characters, keeps none of text's memory, and leaves what it has cut as it is.
func Cut(text string) string {
	if len(text) <= MaxText {
		return text
	}
	whole := len(text)
	if i := strings.LastIndex(text, cutMark); i >= 0 { // what wraps a text that was cut says how long that was
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
