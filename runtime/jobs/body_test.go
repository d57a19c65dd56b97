package jobs

import (
	"bytes"
	"testing"
)

// TestMemoryOfInputs has inputs come one after another, in memory that is used again, and what
// functions were given stay as it was.
func TestMemoryOfInputs(t *testing.T) {
	type kept struct{ got, want []byte }
	var all []kept
	for i, size := range []int{0, 1, 23, 24, 255, 256, minPooled, 65535, 65536, 100_000, minPooled, inline} {
		want := bytes.Repeat([]byte{byte(i + 1)}, size)
		for range 3 { // in memory of the first two, if it is long
			item, err := encoding.Marshal(&body{Enc: encBytes, Bytes: want})
			if err != nil {
				t.Fatal(err)
			}
			var looked, taken body
			for _, b := range []*body{&looked, &taken} {
				if err := decoding.Unmarshal(item, b); err != nil {
					t.Fatal(err)
				}
			}
			view, err := decodeInput[View](&looked)
			if err != nil || !bytes.Equal(view, want) {
				t.Fatalf("a View of %d bytes has %d, error %v", size, len(view), err)
			}
			looked.recycle()
			got, err := decodeInput[[]byte](&taken)
			if err != nil || cap(got) > max(2*size, minPooled) {
				t.Fatalf("%d bytes are in memory of %d, error %v", size, cap(got), err)
			}
			taken.recycle()
			all = append(all, kept{got, want})
		}
	}
	for _, k := range all {
		if !bytes.Equal(k.got, k.want) {
			t.Errorf("an input of %d bytes has changed", len(k.want))
		}
	}
}
