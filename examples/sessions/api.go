package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/coppice-go/coppice/actors"
)

const (
	maxValue = 64 << 10
	patience = 5 * time.Second // of a request
)

// api is the store by HTTP: GET and PUT of /s/<key>; GET of / lists which process each
// worker is, and how many sessions it has.
type api struct {
	client *client
	name   string
	id     int
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	w.Header().Set("Worker", a.name)
	key, ok := strings.CutPrefix(r.URL.Path, "/s/")
	switch {
	case r.URL.Path == "/":
		a.index(ctx, w)
	case !ok || key == "":
		http.NotFound(w, r)
	case r.Method == http.MethodPut:
		value, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxValue))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		e, err := a.client.write(ctx, key, string(value), a.id)
		a.answer(ctx, w, key, e.Version, "", err)
	case r.Method == http.MethodGet:
		e, err := a.client.read(ctx, key)
		if err == nil && e.Version == 0 {
			http.NotFound(w, r)
			return
		}
		a.answer(ctx, w, key, e.Version, e.Value, err)
	default:
		http.Error(w, "GET or PUT", http.StatusMethodNotAllowed)
	}
}

// answer writes the names of the session's keepers, and its value.
func (a *api) answer(ctx context.Context, w http.ResponseWriter, key string, version uint64, value string, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	keepers, _ := a.client.group.Rank(ctx, key) // for people only
	var names []string
	for _, pid := range keepers[:min(copies, len(keepers))] {
		names = append(names, strings.TrimSuffix(pid.Id, "/"+storeName))
	}
	w.Header().Set("Keepers", strings.Join(names, " "))
	w.Header().Set("Version", fmt.Sprint(version))
	fmt.Fprintln(w, value)
}

// index lists the process and the number of sessions of each worker.
func (a *api) index(ctx context.Context, w http.ResponseWriter) {
	members, err := a.client.group.Members(ctx)
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	for _, pid := range members {
		f, err := actors.Ask[figures](ctx, a.client.sys, pid, size{})
		if err != nil {
			continue // it has ended since
		}
		fmt.Fprintf(w, "%s pid %d: %d sessions\n", strings.TrimSuffix(pid.Id, "/"+storeName), f.PID, f.Sessions)
	}
}
