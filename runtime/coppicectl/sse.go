package main

import (
	"bufio"
	"bytes"
	"io"
)

// maxMessage bounds the length of one line of a stream.
const maxMessage = 4 << 20

// message is one server-sent event (HTML, section 9.2).
type message struct {
	event string // "" = message
	id    string // of this message, or of the last one that had one
	data  []byte
}

// readMessages calls each for every message until the stream ends or each fails. A message without
// the empty line at its end was cut off, and is none.
func readMessages(r io.Reader, each func(message) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxMessage)
	var m message
	var data [][]byte
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if data != nil {
				m.data = bytes.Join(data, []byte("\n"))
				if err := each(m); err != nil {
					return err
				}
			}
			m, data = message{id: m.id}, nil
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) { // "" is a comment
		case "event":
			m.event = string(value)
		case "id":
			m.id = string(value)
		case "data":
			data = append(data, bytes.Clone(value))
		}
	}
	return lines.Err()
}
