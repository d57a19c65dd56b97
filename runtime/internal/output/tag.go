package output

import (
	"encoding/json"
	"fmt"
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
			field += fmt.Sprintf(`,"%s":%d`, n.name, n.value)
		}
		return priority + trimmed[:len(trimmed)-1] + field + "}}"
	}
	if l.Piece == 0 && !ok {
		if _, is := parseLogfmt(text); is {
			text += " process.name=" + l.Name
			for _, n := range l.numbers() {
				text += fmt.Sprintf(" process.%s=%d", n.name, n.value)
			}
			return text
		}
	}
	return priority + tag + "| " + text
}

type number struct {
	name  string
	value int
}

// numbers returns the numbers of the line's process that are not zero.
func (l Line) numbers() (ns []number) {
	for _, n := range []number{{"id", l.ID}, {"pid", l.PID}, {"incarnation", l.Incarnation}, {"generation", l.Generation}} {
		if n.value != 0 {
			ns = append(ns, n)
		}
	}
	return ns
}
