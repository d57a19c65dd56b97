package mark

import (
	"reflect"
	"testing"
)

// TestParse: what String writes is read back; what a later release adds is ignored; what is wrong
// is named.
func TestParse(t *testing.T) {
	whole := Mark{PID: 7, State: 12, At: 1<<62 + 5, Ignored: 1 << 30, Files: []int64{3, 1000, 4}}
	for _, tt := range []struct {
		value string
		want  Mark
	}{
		{whole.String(), whole},
		{Mark{}.String(), Mark{}},
		{"", Mark{}},
		{"pid=7 new=x,y state=4 also", Mark{PID: 7, State: 4}},
		{"pid=7x", Mark{Bad: "pid=7x: no number"}},
		{"state=99999999999999999999", Mark{Bad: "state=99999999999999999999: no number"}},
		{"files=3,,4", Mark{Files: []int64{3}, Bad: "files=3,,4: no number"}},
		{"files=3,4;5 pid=1", Mark{Files: []int64{3}, Bad: "files=3,4;5: no number"}},
	} {
		if got := parse(tt.value); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %+v, want %+v", tt.value, got, tt.want)
		}
	}
}

// FuzzParse: any value gives a mark that is read back from what it writes, or says what is wrong.
func FuzzParse(f *testing.F) {
	f.Add(Mark{PID: 7, State: 12, Files: []int64{3, 4}}.String())
	f.Add("files=1,,2 x pid=-1 state==")
	f.Fuzz(func(t *testing.T, v string) {
		m := parse(v)
		if len(m.Files) > len(v) {
			t.Errorf("%d descriptors from %d bytes", len(m.Files), len(v))
		}
		if again := parse(m.String()); m.Bad == "" && !reflect.DeepEqual(again, m) {
			t.Errorf("%+v, read again %+v", m, again)
		}
	})
}
