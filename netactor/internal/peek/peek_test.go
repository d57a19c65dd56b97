package peek

import "testing"

// most is the number of bytes that are looked at.
const most = 8192

// steady checks that the result for the beginning of b is also the result for b.
func steady(t *testing.T, b []byte, read func([]byte) (string, Verdict)) {
	t.Helper()
	what, v := read(b)
	for i := range min(len(b), 600) {
		w, early := read(b[:i])
		if early != More && (early != v || w != what) {
			t.Fatalf("of %d bytes: %q, %d; of %d: %q, %d", i, w, early, len(b), what, v)
		}
	}
}
