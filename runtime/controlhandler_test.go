package coppice

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/control"
	"github.com/coppice-go/coppice/runtime/internal/history"
)

// lines returns a handler with the latest two of four lines.
func lines() *controlHandler {
	c := &controlHandler{operatedParts: operatedParts{lines: history.New(2, 1<<20, func(OutputLine) int { return 1 })}}
	for _, name := range []string{"web/0", "web/1", "web/1", "web/0"} {
		c.lines.Put(OutputLine{Identity: Identity{Name: name}})
	}
	return c
}

// TestLogsTellWhatIsLost: the first line for a client that wants one process tells how many lines
// were lost, also if the line after the loss is another process's. A client that comes again still
// wants that process alone.
func TestLogsTellWhatIsLost(t *testing.T) {
	server := httptest.NewServer(control.Guard(control.Bounded(http.HandlerFunc(lines().serveLogs)), nil))
	defer server.Close()
	for _, tt := range []struct{ query, after, begins string }{
		{"?follow=1&process=web/0", "", "event: line\nid: 4\ndata: {\"cursor\":4,\"lost\":2,"},
		{"?follow=1&process=web/0", "2", "event: line\nid: 4\ndata: {\"cursor\":4,\"time\""},
		{"?process=web/0", "", "[{\"cursor\":4,\"lost\":2,"},
		{"?process=web/0", "2", "[{\"cursor\":4,\"time\""},
		{"?process=web/2", "", "[]"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+tt.query, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.after != "" {
			req.Header.Set("Last-Event-ID", tt.after)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(tt.begins))
		_, err = io.ReadFull(resp.Body, got)
		resp.Body.Close()
		if string(got) != tt.begins {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
	}
}

// TestOneBundle: a bundle is large, and one is made at a time.
func TestOneBundle(t *testing.T) {
	c := lines()
	c.bundling.Lock()
	w := httptest.NewRecorder()
	c.serveBundle(w, httptest.NewRequest(http.MethodGet, "/v1/bundle", nil))
	if w.Code != http.StatusConflict {
		t.Errorf("status %d: %s", w.Code, w.Body)
	}
}

// TestLyingAboutActors: what a worker says of its actors costs the master a bounded memory.
func TestLyingAboutActors(t *testing.T) {
	var infos []actors.ActorInfo
	lie := "[" + strings.Repeat("{},", maxListed) + "{}]"
	if err := decodeActors([]byte(lie), &infos); err == nil || infos != nil {
		t.Errorf("%d actors, %v", len(infos), err)
	}
}
