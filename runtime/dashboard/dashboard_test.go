package dashboard_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/runtime/dashboard"
)

// get asks for a path; the body is the answer's.
func get(t *testing.T, url, match string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if match != "" {
		req.Header.Set("If-None-Match", match)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// api answers with the path that it gets.
func api(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.URL.Path) }

// TestPage: below a prefix the page, each file that it names, and the endpoint are there, with the
// headers that keep a browser from running what a tree prints.
func TestPage(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/ops/tree/", http.StripPrefix("/ops/tree", dashboard.Handler(http.HandlerFunc(api))))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	at := srv.URL + "/ops/tree" // without the slash: the mux leads to the page
	_, page := get(t, at, "")
	names := []string{"", "v1/workers"}
	for _, m := range regexp.MustCompile(`(?:href|src)="([^#"][^"]*)"`).FindAllStringSubmatch(page, -1) {
		names = append(names, m[1])
	}
	if len(names) < 5 {
		t.Fatalf("the page names %q: want its styles, scripts and icon", names)
	}
	for _, name := range names {
		resp, body := get(t, at+"/"+name, "")
		if resp.StatusCode != http.StatusOK || body == "" {
			t.Errorf("%s: %s, %d bytes", name, resp.Status, len(body))
		}
		for header, want := range map[string]string{
			"Content-Security-Policy": "script-src 'self';", "X-Content-Type-Options": "nosniff",
			"X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer",
		} {
			if got := resp.Header.Get(header); !strings.Contains(got, want) {
				t.Errorf("%s: %s is %q: want %q", name, header, got, want)
			}
		}
		if strings.Contains(resp.Header.Get("Content-Security-Policy"), "unsafe") {
			t.Errorf("%s: an unsafe policy", name)
		}
		if tag := resp.Header.Get("ETag"); tag != "" {
			if again, _ := get(t, at+"/"+name, tag); again.StatusCode != http.StatusNotModified {
				t.Errorf("%s: %s for a browser that has it: want 304", name, again.Status)
			}
		}
	}
	if resp, body := get(t, at+"/v1/workers", ""); body != "/v1/workers" || resp.Header.Get("X-Accel-Buffering") != "no" {
		t.Errorf("the endpoint gets path %q; %v", body, resp.Header)
	}
	if resp, _ := get(t, at+"/page/index.html", ""); resp.StatusCode != http.StatusNotFound {
		t.Errorf("no such file: %s", resp.Status)
	}
	resp, err := http.Post(at+"/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST of the page: %s", resp.Status)
	}
}

// TestProxy: the page of a tree behind a socket; a foreign page and a foreign name get nothing, and
// a tree that has gone is an error in JSON.
func TestProxy(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Skip(err)
	}
	tree := &http.Server{Handler: http.HandlerFunc(api)}
	go func() { _ = tree.Serve(ln) }() // ends with Close
	page := dashboard.Proxy(socket)
	ask := func(method string, change func(*http.Request)) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), method, "http://127.0.0.1:9/v1/tree", nil)
		change(r)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		return w
	}
	if w := ask("GET", func(*http.Request) {}); w.Code != 200 || w.Body.String() != "/v1/tree" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask("GET", func(r *http.Request) { r.Host = "evil.example" }); w.Code != 403 {
		t.Errorf("a name that leads here: %d", w.Code)
	}
	if w := ask("POST", func(r *http.Request) { r.Header.Set("Origin", "http://evil.example") }); w.Code != 403 {
		t.Errorf("a foreign page writes: %d", w.Code)
	}
	tree.Close()
	if w := ask("GET", func(*http.Request) {}); w.Code != 502 || !strings.Contains(w.Body.String(), `"error"`) {
		t.Errorf("the tree has gone: %d %s", w.Code, w.Body)
	}
}
