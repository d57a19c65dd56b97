// Package dashboard shows a running tree in a browser, and steers it: a page over the control
// endpoint that docs/control.md describes. A program mounts it in its own admin server, which must
// ask who its clients are:
//
//	api := rt.ControlHandler(coppice.ControlOptions{Writes: true})
//	mux.Handle("/coppice/", http.StripPrefix("/coppice", dashboard.Handler(api)))
//
// The page is plain JavaScript and loads nothing from elsewhere. While it is visible it asks each
// second for the workers and the listeners, and follows the events; hidden, it asks for nothing.
package dashboard

import (
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httputil"
	"path"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/control"
)

//go:embed page
var files embed.FS

// policy lets the page use its own files and paths, and nothing else: no script or style that
// stands in a page, no frame, no text that becomes a part of the document.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// types has the types of the page's files: the system's table is not asked.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
	".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

// asset is a file of the page.
type asset struct{ kind, tag, text string }

// assets has the files by their paths, from the first request on.
var assets = sync.OnceValue(load)

func load() map[string]asset {
	found := map[string]asset{}
	list, err := fs.ReadDir(files, "page")
	if err != nil {
		panic("dashboard: " + err.Error()) // the files are a part of this program
	}
	for _, f := range list {
		text, err := files.ReadFile("page/" + f.Name())
		if err != nil {
			panic("dashboard: " + err.Error())
		}
		found["/"+f.Name()] = asset{types[path.Ext(f.Name())], fmt.Sprintf("\"%x\"", sha256.Sum256(text))[:18] + `"`, string(text)}
	}
	found["/"] = found["/index.html"]
	return found
}

// Handler returns the page at /, and passes paths below /v1/ on to api, which is
// Runtime.ControlHandler's. It uses relative paths, so that it works below any prefix that
// http.StripPrefix takes away; the path of the page must end in a slash.
func Handler(api http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		if strings.HasPrefix(r.URL.Path, "/v1/") {
			h.Set("Cache-Control", "no-store")
			h.Set("X-Accel-Buffering", "no") // of nginx, which would hold streams back
			api.ServeHTTP(w, r)
			return
		}
		a, ok := assets()[r.URL.Path]
		switch {
		case !ok:
			http.NotFound(w, r)
			return
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "dashboard: only GET and HEAD", http.StatusMethodNotAllowed)
			return
		}
		h.Set("Content-Type", a.kind)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", a.tag)
		if r.Header.Get("If-None-Match") == a.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Length", fmt.Sprint(len(a.text)))
		if r.Method == http.MethodGet {
			_, _ = w.Write([]byte(a.text)) // on an error the client is gone
		}
	})
}

// Proxy is [Handler] for the tree whose control endpoint is the Unix socket at path socket. The
// tree sees this process as the one that asks. Like ControlHandler it refuses requests of pages of
// another origin, and names that are neither addresses nor localhost; it does not ask who its
// clients are. On a port of a machine with other users, mount it below a prefix that cannot be
// guessed.
func Proxy(socket string) http.Handler {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "http", "tree", "tree"
		},
		Transport:     control.Transport(socket),
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0), // the page says it
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			control.Error(w, http.StatusBadGateway, fmt.Errorf("dashboard: %w", err))
		},
	}
	return Handler(control.Guard(proxy, nil))
}
