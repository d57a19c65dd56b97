package main

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// TestReadMessages: what a stream has is read as HTML, section 9.2 says.
func TestReadMessages(t *testing.T) {
	for name, c := range map[string]struct {
		stream string
		want   []string // event, id, data
	}{
		"one":                {"event: line\nid: 7\ndata: {}\n\n", []string{"line 7 {}"}},
		"comment":            {": nothing new\n\ndata: a\n\n", []string{"  a"}},
		"CRLF":               {"event: line\r\ndata: a\r\n\r\n", []string{"line  a"}},
		"several data lines": {"data: a\ndata: b\n\n", []string{"  a\nb"}},
		"no space":           {"data:a\n\n", []string{"  a"}},
		"colon in data":      {"data: a: b\n\n", []string{"  a: b"}},
		"the ID stays":       {"id: 1\ndata: a\n\nevent: done\ndata: b\n\n", []string{" 1 a", "done 1 b"}},
		"no data":            {"event: line\n\ndata: b\n\n", []string{"  b"}},
		"cut off":            {"data: a\n\ndata: b\n", []string{"  a"}},
		"empty data":         {"data\n\n", []string{"  "}},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			err := readMessages(iotest.OneByteReader(strings.NewReader(c.stream)), func(m message) error {
				got = append(got, fmt.Sprintf("%s %s %s", m.event, m.id, m.data))
				return nil
			})
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}

// TestReadMessagesFails: the first error ends the reading, be it the stream's or the reader's of
// messages; a line without end is one.
func TestReadMessagesFails(t *testing.T) {
	mine := errors.New("mine")
	if err := readMessages(strings.NewReader("data: a\n\n"), func(message) error { return mine }); !errors.Is(err, mine) {
		t.Errorf("of a message: %v", err)
	}
	if err := readMessages(iotest.ErrReader(mine), nil); !errors.Is(err, mine) {
		t.Errorf("of the stream: %v", err)
	}
	if err := readMessages(strings.NewReader(strings.Repeat("a", maxMessage+1)), nil); err == nil {
		t.Error("a line without end is read")
	}
}
