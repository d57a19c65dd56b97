package otlp

import (
	"strings"
	"testing"
)

// OpenTelemetry's rule: ^[A-Za-z][A-Za-z0-9_./-]{0,254}$
func TestInstrumentName(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "Z": true, "a.b/c-d_0": true, strings.Repeat("a", 255): true,
		"": false, "0a": false, "_a": false, ".a": false, "a b": false, "a\n": false, "é": false, "aé": false,
		"a@": false, "a[": false, "a`": false, "a{": false, strings.Repeat("a", 256): false,
	} {
		if instrumentName(name) != want {
			t.Errorf("%q is a name: %t", name, !want)
		}
	}
}
