package handover

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/supervisor"
)

var rewrite = flag.Bool("rewrite", false, "write the golden state anew")

// files is the number of descriptors that go with the sample.
const files = 200

// sample has a value in each field, a field that is added later included. No two numbers are equal.
func sample() (s Master) {
	last := 0
	var fill func(name string, v reflect.Value)
	fill = func(name string, v reflect.Value) {
		last++
		switch v.Kind() {
		case reflect.Struct:
			if v.Type() == reflect.TypeFor[time.Time]() {
				v.Set(reflect.ValueOf(time.Date(2026, 11, 30, 1, 2, 3, last, time.UTC)))
				return
			}
			for i := range v.NumField() {
				fill(v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Slice:
			if v.Type().Elem().Kind() == reflect.Uint8 {
				v.SetBytes([]byte(name))
				return
			}
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(name, v.Index(0))
		case reflect.Map:
			e := reflect.New(v.Type().Elem()).Elem()
			fill(name, e)
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf(name), e)
		case reflect.String:
			v.SetString(name)
		case reflect.Bool:
			v.SetBool(true)
		case reflect.Int, reflect.Int64:
			v.SetInt(int64(last))
		case reflect.Uint8, reflect.Uint32, reflect.Uint64:
			v.SetUint(uint64(last))
		default:
			panic(name + " is a " + v.Kind().String())
		}
	}
	fill("Master", reflect.ValueOf(&s).Elem())
	s.Format, s.Reads = Format, Reads
	return s
}

func encoded(t testing.TB, v any) []byte {
	t.Helper()
	b, err := encoding.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestState: the state is written as testdata/state.txt says, and read as it was written.
func TestState(t *testing.T) {
	s := sample()
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	text, err := cbor.Diagnose(b)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.ReplaceAll(text, `, "`, ",\n\"") + "\n"
	const file = "testdata/state.txt"
	if *rewrite {
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(file); err != nil || string(want) != text {
		t.Errorf("%v; the state is written otherwise: what reads %s must still be able to\n%s", err, file, text)
	}
	for _, want := range []Master{s, {Format: Format, Reads: Reads}} {
		if got, err := Decode(encoded(t, want), files); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%v; read again it is\n%+v, not\n%+v", err, got, want)
		}
	}
}

// TestFormats: the state of a later release is read if its writer says that it can be; fields that
// are not known are ignored.
func TestFormats(t *testing.T) {
	for _, tt := range []struct {
		format, reads int
		ok            bool
	}{{Format, Reads, true}, {Format + 1, Format, true}, {Format + 1, Format + 1, false}, {0, Reads, false}, {Format, 0, false}, {0, 0, false}, {-1, -1, false}} {
		s := sample()
		s.Format, s.Reads = tt.format, tt.reads
		got, err := Decode(encoded(t, struct {
			Master
			Later map[string][]string
		}{s, map[string][]string{"x": {"y"}}}), files)
		if (err == nil) != tt.ok || errors.Is(err, ErrFormat) == tt.ok || tt.ok && !reflect.DeepEqual(got, s) {
			t.Errorf("format %d for readers of %d: %v", tt.format, tt.reads, err)
		}
	}
}

// TestReadsWaiting: a state with a child that waits for its restart is for readers that start it.
func TestReadsWaiting(t *testing.T) {
	for status, want := range map[supervisor.Status]int{supervisor.Running: Reads, supervisor.Down: Reads, supervisor.Restarting: Format} {
		b, err := Master{Books: map[string]supervisor.Book{"master/web": {Children: []supervisor.ChildBook{{ID: "0", Status: status}}}}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if s, err := Decode(b, 0); err != nil || s.Reads != want {
			t.Errorf("%v: for readers of %d, want %d; %v", status, s.Reads, want, err)
		}
	}
}

// TestDecodeErrors: a state that cannot be is an error that says what is wrong.
func TestDecodeErrors(t *testing.T) {
	change := func(f func(*Master)) []byte {
		s := sample()
		f(&s)
		return encoded(t, s)
	}
	whole := change(func(*Master) {})
	many := make([]*FormerWorker, 1<<16+1)
	for want, b := range map[string][]byte{
		"the executable has descriptor 200 of 200": change(func(s *Master) { s.Generations.Files[0] = files }),
		"the actors has descriptor -1 of 200":      change(func(s *Master) { s.Actors.Files[0] = -1 }),
		"the program of the master and the channel of Name have descriptor 7": change(func(s *Master) {
			s.Self.Files[0], s.Workers[0].Channel.Files[0] = 7, 7
		}),
		"the socket table and the socket table have descriptor 7": change(func(s *Master) { s.Sockets.Files = []int{7, 8, 7} }),
		"the process of Name and the process of Path have descriptor 7": change(func(s *Master) {
			s.Workers[0].Process.Files[0], s.Programs[0].Process.Files[0] = 7, 7
		}),
		"EOF":                    nil,
		"unexpected EOF":         whole[:len(whole)-1],
		"extraneous data":        append(slices.Clone(whole), 0),
		"cannot unmarshal":       encoded(t, []int{1}),
		"duplicate map key":      append([]byte{0xa2}, bytes.Repeat([]byte("\x66Format\x01"), 2)...),
		"indefinite-length":      {0xbf, 0xff},
		"max number of elements": encoded(t, map[string]any{"Format": 1, "Reads": 1, "Workers": many}),
		"exceeded max nested":    append(append([]byte{0xa1}, "\x61x"...), append(bytes.Repeat([]byte{0x81}, 20), 0)...),
		"Format of type int":     encoded(t, map[string]any{"Format": "one"}),
	} {
		if _, err := Decode(b, files); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// TestDescriptors: a process has its pidfd, and the pipe of each output that has not ended.
func TestDescriptors(t *testing.T) {
	var p RunningProcess
	for want := 3; want > 0; want-- {
		if got := p.Descriptors(); got != want {
			t.Errorf("%d descriptors, want %d", got, want)
		}
		p.Stdout.Ended, p.Stderr.Ended = true, p.Stdout.Ended
	}
}

// TestPlan: an upgrade says what becomes of the children, and of their values.
func TestPlan(t *testing.T) {
	is := func(path, kind string) string { return declaration.Line(path, declaration.Is, kind) }
	size := func(n string) string { return declaration.Line("web", "Size", n) }
	web, clock, counter := is("web", "Pool"), is("clock", "Func"), is("counter", "Actor")
	for name, tt := range map[string]struct{ from, to, want []string }{
		"nothing":       {nil, nil, nil},
		"kept":          {[]string{web, size("2")}, []string{web, size("2")}, nil},
		"another value": {[]string{web, size("2")}, []string{web, size("4")}, []string{"web.Size becomes 4, was 2"}},
		"a value less":  {[]string{web, size("2")}, []string{web}, []string{"web.Size becomes unset, was 2"}},
		"a value more":  {[]string{web}, []string{web, size("2")}, []string{"web.Size becomes 2, was unset"}},
		"a setting of an open socket": {[]string{is("http", "ListenerSpec"), declaration.Line("http", "Backlog", "5")}, []string{is("http", "ListenerSpec")}, []string{
			"http.Backlog stays 5 until its socket is opened anew: the new program has unset",
		}},
		"how it hands over": {[]string{is("http", "ListenerSpec"), declaration.Line("http", "Park", "1s")}, []string{is("http", "ListenerSpec"), declaration.Line("http", "Policy", "hash")}, []string{
			"http.Park becomes unset, was 1s", "http.Policy becomes hash, was unset",
		}},
		"that it does not hand over": {[]string{is("http", "ListenerSpec"), declaration.Line("http", "Park", "1s")}, []string{is("http", "ListenerSpec"), declaration.Line("http", "Policy", "shared")}, []string{
			"http.Park stays 1s until its socket is opened anew: the new program has unset", "http.Policy stays unset until its socket is opened anew: the new program has shared",
		}},
		"another socket": {[]string{is("http", "ListenerSpec"), declaration.Line("http", "Address", ":1")}, []string{is("http", "ListenerSpec"), declaration.Line("http", "Address", ":2"), declaration.Line("http", "Backlog", "5")}, []string{
			"http.Address becomes :2, was :1", "http.Backlog becomes 5, was unset",
		}},
		"new":          {nil, []string{web}, []string{"web (Pool) is new: it is started"}},
		"gone":         {[]string{web}, nil, []string{"web (Pool) is gone: it is stopped"}},
		"another kind": {[]string{web}, []string{is("web", "Process")}, []string{"web was a Pool and is a Process: it is stopped, and started"}},
		"in the master": {[]string{clock, counter, web}, []string{web, clock, counter}, []string{
			"clock (Func) runs in the master: it starts anew, with what it hands over", "counter (Actor) runs in the master: it starts anew, with what it hands over",
		}},
		"gone from the master": {[]string{clock}, nil, []string{"clock (Func) is gone: it is stopped"}},
	} {
		if got := Plan(tt.from, tt.to); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// FuzzDecode: bytes that no master wrote are an error, or a state whose descriptors have come.
func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, sample()), files)
	f.Add(encoded(f, Master{Format: Format, Reads: Reads}), 0)
	f.Add(encoded(f, map[string]any{"Format": 1, "Reads": 1, "Workers": make([]*FormerWorker, 9)}), 0)
	f.Fuzz(func(t *testing.T, b []byte, files int) {
		s, err := Decode(b, files)
		if err != nil {
			return
		}
		if again, err := Decode(encoded(t, s), files); err != nil || !bytes.Equal(encoded(t, again), encoded(t, s)) {
			t.Errorf("%+v is read, and not when it is written again: %v", s, err)
		}
	})
}
