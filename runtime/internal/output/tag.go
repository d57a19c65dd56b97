package output

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// TagFields returns the line with its process as a field, if the line is a JSON object or logfmt,
// and otherwise with its tag before it. A syslog priority stays the first thing in the line.
func TagFields(tag string, l Line) string {
	_, text, ok := CutPriority(l.Text)
	priority := l.Text[:len(l.Text)-len(text)]
	if trimmed := strings.TrimRight(text, " \t\r"); l.Piece == 0 && strings.HasPrefix(trimmed, "{") && strings.HasSuffix(trimmed, "}") && json.Valid([]byte(trimmed)) {
		comma := ","
		if strings.TrimSpace(trimmed[1:len(trimmed)-1]) == "" {
			comma = ""
		}
		name, _ := json.Marshal(l.Name) // a string can be encoded
		field := fmt.Sprintf(`%s"process":{"name":%s`, comma, name)
		for _, n := range l.numbers() {
			field += fmt.Sprintf(`,"%s":%d`, n.Name, n.Value)
		}
		return priority + trimmed[:len(trimmed)-1] + field + "}}"
	}
	if l.Piece == 0 && !ok {
		if _, is := parseLogfmt(text); is {
			text += " process.name=" + l.Name
			for _, n := range l.numbers() {
				text += fmt.Sprintf(" process.%s=%d", n.Name, n.Value)
			}
			return text
		}
	}
	return priority + tag + "| " + text
}

func (l Line) numbers() []Number { return Numbers(l.ID, l.PID, l.Incarnation, l.Generation) }

// A Number is one of the numbers that tell the processes of a name apart, by its key in a record.
type Number struct {
	Name  string
	Value int
}

// Numbers returns those of a process that are not zero.
func Numbers(id, pid, incarnation, generation int) []Number {
	all := []Number{{"id", id}, {"pid", pid}, {"incarnation", incarnation}, {"generation", generation}}
	return slices.DeleteFunc(all, func(n Number) bool { return n.Value == 0 })
}
