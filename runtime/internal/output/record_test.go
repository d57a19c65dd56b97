package output

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// TestParse: lines of usual loggers are records with their level, message and attributes; other
// lines are messages.
func TestParse(t *testing.T) {
	for _, tt := range []struct{ name, line, want string }{
		{"slog", `{"time":"2026-11-29T15:04:05.5Z","level":"INFO","msg":"resized","size":3,"ok":true,"g":{"a":[1,2.50]}}`, `INFO resized time size=3 ok=true g={"a":[1,2.50]}`},
		{"slog's level between two", `{"level":"WARN+2","msg":"m"}`, `WARN+2 m`},
		{"zap", `{"level":"error","ts":1700000000.5,"caller":"a.go:3","msg":"m"}`, `ERROR m time caller=a.go:3`},
		{"pino", `{"level":30,"time":1700000000123,"pid":7,"msg":"m"}`, `INFO m time pid=7`},
		{"zerolog", `{"level":"warn","time":"2026-11-29T15:04:05Z","message":"m","n":1e400}`, `WARN m time n=1e400`},
		{"a second msg stays", `{"msg":"m","message":"n"}`, `INFO m message=n`},
		{"level unknown stays", `{"msg":"m","level":"loud"}`, `INFO m level=loud`},
		{"JSON that is no record", `{"answer":42}`, `plain {"answer":42}`},
		{"JSON cut off", `{"level":"INFO","msg":"m"`, `plain {"level":"INFO","msg":"m"`},
		{"two objects", `{"msg":"m"}{"msg":"n"}`, `plain {"msg":"m"}{"msg":"n"}`},
		{"slog text", `time=2026-11-29T15:04:05.000Z level=DEBUG msg="two words" a.b=c q="x=\"y\""`, `DEBUG two words time a.b=c q=x="y"`},
		{"no logfmt", `x=1 is small`, `plain x=1 is small`},
		{"slog by default", `2026/11/29 15:04:05 WARN disk full path=/`, `WARN disk full path=/ time`},
		{"package log", `2026/11/29 15:04:05 hello there`, `plain 2026/11/29 15:04:05 hello there`},
		{"syslog priority", `<3>no disk`, `plain ERROR no disk`},
		{"priority and JSON", `<6>{"level":"WARN","msg":"m"}`, `WARN m`},
		{"text", `hello`, `plain hello`},
	} {
		r := Parse(tt.line)
		got := r.Level.String() + " " + r.Message
		if r.Form == Plain {
			got = "plain " + strings.TrimPrefix(got, "INFO ")
		}
		if !r.Time.IsZero() {
			got += " time"
		}
		for _, a := range r.Attrs {
			got += " " + a.Key + "=" + a.Value.String()
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestParseLosesNothing: what a JSON record says is in the record that it becomes.
func TestParseLosesNothing(t *testing.T) {
	const line = `{"time":"2026-11-29T15:04:05.5Z","level":"INFO","msg":"m","big":12345678901234567890,"f":1.50,"n":null,"e":{},"o":{"k":["é","<"]}}`
	r := Parse(line)
	var b bytes.Buffer
	rec := slog.NewRecord(r.Time, r.Level, r.Message, 0)
	rec.AddAttrs(r.Attrs...)
	if err := slog.NewJSONHandler(&b, nil).Handle(t.Context(), rec); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(b.String()); got != line {
		t.Errorf("got %s, want %s", got, line)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"time":"2026-11-29T15:04:05.5Z","level":"INFO","msg":"m","g":{"a":[1,2.50]}}`)
	f.Add(`level=INFO msg="a b" c=d`)
	f.Add(`<3>2026/11/29 15:04:05 WARN x`)
	f.Add(`{"ts":1e15,"msg":""}`)
	f.Fuzz(func(t *testing.T, line string) {
		r := Parse(line)
		var b bytes.Buffer
		rec := slog.NewRecord(time.Unix(0, 0).UTC(), r.Level, r.Message, 0)
		rec.AddAttrs(r.Attrs...)
		if err := slog.NewJSONHandler(&b, nil).Handle(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		if !json.Valid(b.Bytes()) {
			t.Errorf("%q becomes %q", line, b.String())
		}
	})
}
