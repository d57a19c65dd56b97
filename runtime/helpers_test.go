package coppice_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// pool is a tree of one pool.
func pool(size int, fn coppice.WorkerFunc) coppice.Config {
	return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: size, Worker: fn}}}
}

// name answers each request with the worker's slot.
func name(w *coppice.Worker) *http.Server {
	return &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, w.Slot())
	})}
}

// get asks the server at addr over a fresh connection.
func get(t *testing.T, addr string) string {
	t.Helper()
	client := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
