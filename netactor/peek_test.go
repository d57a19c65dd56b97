package netactor

import (
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor/internal/peek"
)

func TestPeekValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Peek
		want string
	}{
		{"nothing", Peek{}, ""},
		{"sni", Peek{By: PeekSNI, Timeout: time.Minute}, ""},
		{"cookie", Peek{By: PeekCookie, Cookie: "sid"}, ""},
		{"bytes", Peek{By: PeekBytes, Bytes: peek.MaxBytes}, ""},
		{"proxy", Peek{Proxy: true, Timeout: time.Second}, ""},
		{"by what", Peek{By: peekBys}, "By is none of"},
		{"cookie without a name", Peek{By: PeekCookie}, "Cookie goes with"},
		{"cookie for nothing", Peek{By: PeekSNI, Cookie: "sid"}, "Cookie goes with"},
		{"name with a blank", Peek{By: PeekCookie, Cookie: "s id"}, "not the name"},
		{"no bytes", Peek{By: PeekBytes}, "Bytes goes with"},
		{"negative", Peek{By: PeekBytes, Bytes: -1}, "between 1 and 8192"},
		{"too many", Peek{By: PeekBytes, Bytes: peek.MaxBytes + 1}, "between 1 and 8192"},
		{"too long", Peek{By: PeekSNI, Timeout: time.Hour}, "Timeout is not"},
		{"timeout for nothing", Peek{Timeout: time.Second}, "needs By"},
	} {
		err := tt.p.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		r := Request{Network: "tcp", Policy: Hash, Peek: tt.p}
		if err := r.Validate(); (err == nil) != (tt.want == "") {
			t.Errorf("%s, in a request: %v", tt.name, err)
		}
	}
	for name, r := range map[string]Request{
		"another policy": {Network: "tcp", Peek: Peek{By: PeekSNI}},
		"no function":    {Network: "tcp", Policy: Hash, Peek: Peek{By: PeekFirst}},
	} {
		if r.Validate() == nil {
			t.Errorf("%s is valid", name)
		}
	}
	for p := range peekBys + 1 {
		if (p == peekBys) != strings.HasPrefix(p.String(), "PeekBy(") {
			t.Errorf("%d is called %s", uint8(p), p)
		}
	}
}
