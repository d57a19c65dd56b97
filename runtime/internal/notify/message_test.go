package notify

import (
	"testing"
	"time"
	"unicode/utf8"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Message
	}{
		{"READY=1", Message{Ready: true}},
		{"READY=1\n", Message{Ready: true}},
		{"READY=0", Message{}},
		{"RELOADING=1\nMONOTONIC_USEC=7", Message{Reloading: true}},
		{"STOPPING=1\nWATCHDOG=1", Message{Stopping: true, Watchdog: true}},
		{"WATCHDOG=trigger\nSTOPPING=0\nRELOADING=", Message{}},
		{"STATUS=loading 3 of 7\nREADY=1\nMAINPID=4", Message{Ready: true, Status: "loading 3 of 7"}},
		{"STATUS=a=b", Message{Status: "a=b"}},
		{"EXTEND_TIMEOUT_USEC=1500000", Message{Extend: 1500 * time.Millisecond}},
		{"EXTEND_TIMEOUT_USEC=-1\nEXTEND_TIMEOUT_USEC=99999999999999999999", Message{}},
		{"EXTEND_TIMEOUT_USEC=9223372036854775807", Message{}},
		{"ready=1\n\n=\nREADY", Message{}},
	} {
		if got := Parse(tt.in); got != tt.want {
			t.Errorf("%q: %+v, want %+v", tt.in, got, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("READY=1\nSTATUS=x\nEXTEND_TIMEOUT_USEC=5")
	f.Add("STATUS=\xff")
	f.Fuzz(func(t *testing.T, s string) {
		m := Parse(s)
		if m.Extend < 0 || len(m.Status) > 3*maxStatus || !utf8.ValidString(m.Status) {
			t.Errorf("%+v", m)
		}
	})
}
