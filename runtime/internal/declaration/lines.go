package declaration

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Is is the field that has a child's kind.
const Is = "is"

// Root is the path of the tree's own settings, which no child can have.
const Root = "/"

// Functions is the path of the functions that have a name. A program may have others than the tree
// needs, so they are no change that [Compare] returns.
const Functions = "/functions"

// The path and the field of the line that stands for the lines that were left out.
const (
	more    = "//"
	leftOut = "left-out"
)

// MaxText bounds a declaration that is sent, in bytes.
const MaxText = 64 << 10

// Of returns the lines of a spec: its kind, which is the name of its type, and the fields that are
// not zero, except those in but. A field of a struct in it has a name like "Liveness.Timeout". What
// a process cannot compare with another's is left out: functions, channels, interfaces, pointers.
func Of(path string, spec any, but ...string) []string {
	lines := []string{Line(path, Is, Kind(spec))}
	fields(reflect.ValueOf(spec), "", func(field, value string, what content) {
		if what != opaque {
			lines = append(lines, Line(path, field, value))
		}
	}, but)
	return lines
}

// Kind returns the kind of a spec: the name of its type.
func Kind(spec any) string { return reflect.TypeOf(spec).Name() }

// Describe returns the fields of a spec for a reader, as lines "path.field value". What Of leaves
// out is there as func or with its type; of a variable there is neither the value nor a digest.
func Describe(path string, spec any, but ...string) (lines []string) {
	fields(reflect.ValueOf(spec), "", func(field, value string, what content) {
		if what == secret {
			value = "set"
		}
		lines = append(lines, clean(path)+"."+field+" "+clean(value))
	}, but)
	return lines
}

// content is what the value of a line is.
type content uint8

const (
	plain  content = iota
	secret         // a digest of what may be a secret
	opaque         // the kind or type of what cannot be compared
)

// Line returns one line of a declaration.
func Line(path, field, value string) string { return clean(path) + " " + field + " " + clean(value) }

func fields(v reflect.Value, prefix string, add func(field, value string, what content), but []string) {
	for i := range v.NumField() {
		f, value := v.Type().Field(i), v.Field(i)
		name := prefix + f.Name
		if !f.IsExported() || value.IsZero() || slices.Contains(but, name) {
			continue
		}
		switch f.Type.Kind() {
		case reflect.Func:
			add(name, "func", opaque)
		case reflect.Interface:
			add(name, value.Elem().Type().String(), opaque)
		case reflect.Chan, reflect.Pointer, reflect.UnsafePointer:
			add(name, f.Type.String(), opaque)
		case reflect.Struct:
			fields(value, name+".", add, but)
		default:
			if kvs, ok := value.Interface().([]string); ok && f.Name == "Env" {
				variables(name, kvs, add)
				continue
			}
			add(name, fmt.Sprintf("%+v", value.Interface()), plain)
		}
	}
}

// variables adds a field for each variable. Its value may be a secret, and stands as a digest.
func variables(name string, kvs []string, add func(field, value string, what content)) {
	const removed = "removed"
	last := map[string]string{}
	for _, kv := range kvs {
		k, v, set := strings.Cut(kv, "=")
		last[k] = removed
		if set {
			last[k] = fmt.Sprintf("(sha256 %.4x)", sha256.Sum256([]byte(v)))
		}
	}
	for _, kv := range kvs {
		k, _, _ := strings.Cut(kv, "=")
		if v, ok := last[k]; ok {
			what := secret
			if v == removed {
				what = plain
			}
			add(name+"."+strings.ReplaceAll(clean(k), " ", "_"), v, what)
			delete(last, k)
		}
	}
}

// clean returns s as text of one line that JSON leaves unchanged.
func clean(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == '\uFFFD' }) {
		q := strconv.QuoteToGraphic(s)
		return q[1 : len(q)-1]
	}
	return s
}

// Bounded returns lines within MaxText. If they are too long in all, each long line ends with its
// digest; if that is not enough, the kinds of the first children are kept, and one line with the
// digest of all stands for the rest.
func Bounded(lines []string) []string {
	const long, kept = 256, 192
	if size(lines) <= MaxText {
		return lines
	}
	cut := slices.Clone(lines)
	for i, l := range cut {
		if len(l) > long {
			cut[i] = fmt.Sprintf("%s… (%d bytes, sha256 %x)", strings.ToValidUTF8(l[:kept], ""), len(l), sha256.Sum256([]byte(l)))
		}
	}
	if size(cut) <= MaxText {
		return cut
	}
	cut = slices.DeleteFunc(cut, func(l string) bool { return parse(l).field != Is })
	for room := MaxText - long; size(cut) > room; {
		cut = cut[:len(cut)*3/4]
	}
	return append(cut, Line(more, leftOut, fmt.Sprintf("%d lines, sha256 %s", len(lines)-len(cut), Digest(lines))))
}

func size(lines []string) (n int) {
	for _, l := range lines {
		n += len(l) + 1
	}
	return n
}

// Digest returns a short text that stands for lines.
func Digest(lines []string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(lines, "\n"))))
}
