package declaration

import (
	"fmt"
	"slices"
	"strings"
)

// A line of a declaration, in parts.
type line struct{ path, field, value string }

func parse(l string) line {
	path, rest, _ := strings.Cut(l, " ")
	field, value, _ := strings.Cut(rest, " ")
	return line{path, field, value}
}

// Field names a field of a child.
type Field struct{ Path, Name string }

// String returns the key as a user writes it: web.Liveness.Timeout, Config.OrphanDrain.
func (k Field) String() string {
	path := k.Path
	switch {
	case path == Root:
		path = "Config"
	case path == more:
		path = "the rest of a long tree"
	}
	if k.Name == Is {
		return path
	}
	return path + "." + k.Name
}

// A Change is a field that two declarations have with different values. A value is "" for a field
// that is zero, and for a child that is not there.
type Change struct {
	Field
	From, To string
}

// values returns the values of a declaration, by key, and the keys in order.
func values(lines []string) (map[Field]string, []Field) {
	m := make(map[Field]string, len(lines))
	keys := make([]Field, 0, len(lines))
	for _, l := range lines {
		p := parse(l)
		k := Field{p.path, p.field}
		if _, twice := m[k]; !twice {
			keys = append(keys, k)
		}
		m[k] = p.value
	}
	return m, keys
}

// Compare returns how b differs from a: first in what a has, in its order. A child that is not in
// both, or is of another kind, has one change, of the field Is.
func Compare(a, b []string) []Change {
	if slices.Equal(a, b) {
		return nil
	}
	from, keys := values(a)
	to, further := values(b)
	for _, k := range further {
		if _, both := from[k]; !both {
			keys = append(keys, k)
		}
	}
	var changes []Change
	for _, k := range keys {
		is := Field{k.Path, Is}
		if from[k] == to[k] || k.Path == Functions || k != is && from[is] != to[is] {
			continue
		}
		changes = append(changes, Change{k, from[k], to[k]})
	}
	return changes
}

// With returns the lines with another value of a field; "" takes the field out.
func With(lines []string, k Field, value string) []string {
	prefix := Line(k.Path, k.Name, "")
	out := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.HasPrefix(l, prefix) })
	if value == "" {
		return out
	}
	at := slices.IndexFunc(out, func(l string) bool { return strings.HasPrefix(l, Line(k.Path, Is, "")) })
	return slices.Insert(out, at+1, prefix+value)
}

// Missing returns the first of the needed lines that a declaration does not have, and the value
// that it has in its place. ok is false if none is missing, or if the declaration was too long to
// be sent as a whole.
func Missing(needed, lines []string) (c Change, ok bool) {
	m, _ := values(lines)
	if _, cut := m[Field{more, leftOut}]; cut {
		return Change{}, false
	}
	for _, n := range needed {
		p := parse(n)
		k := Field{p.path, p.field}
		if m[k] != p.value {
			return Change{k, p.value, m[k]}, true
		}
	}
	return Change{}, false
}

// Children returns the children that lines declare, as text: the first few.
func Children(lines []string) string {
	const few = 8
	var names []string
	for _, l := range lines {
		if p := parse(l); p.field == Is && p.path != Root {
			names = append(names, p.path+" ("+p.value+")")
		}
	}
	if n := len(names) - few; n > 0 {
		names = append(names[:few], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(names, ", ")
}
