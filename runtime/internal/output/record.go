package output

import (
	"encoding/json"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
)

// A Record is what a line says that is the record of a log.
type Record struct {
	Form    Form
	Time    time.Time // zero = the line has none
	Level   slog.Level
	Message string
	Attrs   []slog.Attr // in the order of the line, without those above
}

// A Form is how a line is written.
type Form uint8

// The forms of lines.
const (
	Plain    Form = iota // text: the message is the line
	JSON                 // an object with a level or a message
	Logfmt               // key=value …, with a level and a message
	Standard             // as package slog writes by default: date, time, level, message
)

// Parse returns the record that a line is. A line of none of the forms is Plain, its level Info. A
// syslog priority before the line, as <6>, is the level of a Plain line (sd-daemon(3)).
func Parse(line string) Record {
	priority, text, ok := CutPriority(line)
	r := Record{Message: text}
	if ok {
		r.Level = levelOfPriority(priority)
	}
	for _, parse := range []func(string) (Record, bool){parseJSON, parseLogfmt, parseStandard} {
		if p, is := parse(text); is {
			return p
		}
	}
	return r
}

// CutPriority cuts the syslog priority from the front of a line.
func CutPriority(line string) (priority byte, text string, ok bool) {
	if len(line) >= 3 && line[0] == '<' && line[1] >= '0' && line[1] <= '7' && line[2] == '>' {
		return line[1], line[3:], true
	}
	return 0, line, false
}

func levelOfPriority(p byte) slog.Level {
	switch {
	case p <= '3':
		return slog.LevelError
	case p == '4':
		return slog.LevelWarn
	case p == '7':
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

// Raw is a JSON value that is passed on as it is.
type Raw string

// MarshalJSON returns the value.
func (r Raw) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// String returns the value as JSON.
func (r Raw) String() string { return string(r) }

func parseJSON(line string) (r Record, ok bool) {
	if line = strings.TrimSpace(line); !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "}") {
		return r, false
	}
	r.Form = JSON
	d := json.NewDecoder(strings.NewReader(line))
	if _, err := d.Token(); err != nil {
		return r, false
	}
	var found ownFields
	for d.More() {
		key, err := d.Token()
		name, is := key.(string)
		var raw json.RawMessage
		if err != nil || !is || d.Decode(&raw) != nil {
			return r, false
		}
		if !found.take(&r, name, jsonText(raw)) {
			r.Attrs = append(r.Attrs, slog.Attr{Key: name, Value: jsonValue(raw)})
		}
	}
	if _, err := d.Token(); err != nil {
		return r, false
	}
	if _, err := d.Token(); err != io.EOF {
		return r, false
	}
	return r, found.level || found.message
}

// jsonText returns a string without its quotes, and another value as it is.
func jsonText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return string(raw)
	}
	return s
}

func jsonValue(raw json.RawMessage) slog.Value {
	var s string
	if len(raw) > 0 && raw[0] == '"' && json.Unmarshal(raw, &s) == nil {
		return slog.StringValue(s)
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return slog.Int64Value(n)
	}
	switch string(raw) {
	case "true", "false":
		return slog.BoolValue(raw[0] == 't')
	}
	return slog.AnyValue(Raw(raw))
}

// ownFields are those of a record that are not attributes.
type ownFields struct{ time, level, message bool }

// take puts a field of a line into r if it is such a field, and reports whether it is. The names
// are those of slog, zap, zerolog, logrus, pino and Bunyan.
func (f *ownFields) take(r *Record, key, text string) bool {
	switch key {
	case "time", "ts", "timestamp", "@timestamp":
		t, ok := parseTime(text)
		if f.time || !ok {
			return false
		}
		f.time, r.Time = true, t
	case "level", "lvl", "severity":
		l, ok := parseLevel(text)
		if f.level || !ok {
			return false
		}
		f.level, r.Level = true, l
	case "msg", "message":
		if f.message {
			return false
		}
		f.message, r.Message = true, text
	default:
		return false
	}
	return true
}

// parseTime reads RFC 3339, or seconds or milliseconds since 1970.
func parseTime(s string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, true
	}
	n, err := strconv.ParseFloat(s, 64)
	const milliseconds = 1e11 // in seconds it is the year 5138
	switch {
	case err != nil || n < 0 || n > 1e15:
		return time.Time{}, false
	case n > milliseconds:
		return time.UnixMilli(int64(n)), true
	}
	return time.Unix(0, int64(n*1e9)), true
}

// parseLevel reads the name of a level, in slog's form or another's, or pino's number of it.
func parseLevel(s string) (slog.Level, bool) {
	var l slog.Level
	if l.UnmarshalText([]byte(s)) == nil {
		return l, true
	}
	switch strings.ToLower(s) {
	case "trace", "10", "20":
		return slog.LevelDebug, true
	case "notice", "information", "30":
		return slog.LevelInfo, true
	case "warning", "40":
		return slog.LevelWarn, true
	case "err", "fatal", "panic", "dpanic", "critical", "crit", "alert", "emergency", "50", "60":
		return slog.LevelError, true
	}
	return 0, false
}

func parseLogfmt(line string) (r Record, ok bool) {
	r.Form = Logfmt
	var found ownFields
	for rest := line; rest != ""; {
		key, value, is := strings.Cut(rest, "=")
		if !is || key == "" || strings.ContainsAny(key, " \t\"{}") {
			return r, false
		}
		if strings.HasPrefix(value, `"`) {
			quoted, err := strconv.QuotedPrefix(value)
			if err != nil {
				return r, false
			}
			rest = value[len(quoted):]
			if rest != "" && rest[0] != ' ' {
				return r, false
			}
			value, _ = strconv.Unquote(quoted)
		} else {
			value, rest, _ = strings.Cut(value, " ")
		}
		rest = strings.TrimLeft(rest, " ")
		if !found.take(&r, key, value) {
			r.Attrs = append(r.Attrs, slog.String(key, value))
		}
	}
	return r, found.level && found.message
}

func parseStandard(line string) (r Record, ok bool) {
	const layout = "2006/01/02 15:04:05"
	if len(line) <= len(layout) {
		return r, false
	}
	t, err := time.ParseInLocation(layout, line[:len(layout)], time.Local)
	if err != nil {
		return r, false
	}
	_, rest, _ := strings.Cut(line[len(layout):], " ") // perhaps a fraction of a second
	level, message, ok := strings.Cut(rest, " ")
	if !ok || level != strings.ToUpper(level) {
		return r, false
	}
	r = Record{Form: Standard, Time: t, Message: message}
	return r, r.Level.UnmarshalText([]byte(level)) == nil
}
