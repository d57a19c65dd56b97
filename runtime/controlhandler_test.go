package coppice

import (
	"bufio"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/runtime/internal/history"
)

// TestLogsTellWhatIsLost: the first line of a stream that wants one process tells how many lines
// were lost, also if the line after the loss is another process's.
func TestLogsTellWhatIsLost(t *testing.T) {
	c := &controlHandler{operatedParts: operatedParts{lines: history.New(2, 1<<20, func(OutputLine) int { return 1 })}}
	for _, name := range []string{"web/0", "web/1", "web/1", "web/0"} {
		c.lines.Put(OutputLine{Identity: Identity{Name: name}})
	}
	server := httptest.NewServer(http.HandlerFunc(c.serveLogs))
	defer server.Close()
	resp, err := http.Get(server.URL + "?follow=1&process=web/0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if !strings.HasPrefix(data, `{"cursor":4,"lost":2,`) {
				t.Errorf("the first line is %s", data)
			}
			return
		}
	}
	t.Error("the stream ended")
}
