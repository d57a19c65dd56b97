package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/control"
)

const (
	answerTime = 15 * time.Second // for an answer that needs no work
	lookTime   = 5 * time.Second  // for the first answer of a tree that may hang, on a busy machine
	quietTime  = 40 * time.Second // a stream has a comment every 15 s
)

// tree is a tree of this machine. After look any goroutine may use it.
type tree struct {
	path  string // of its socket
	about about
	err   error // why it did not say
	http  *http.Client

	upgrades bool // it is gone for a while, until its next image listens
}

func newTree(path string) tree {
	name := strings.TrimSuffix(filepath.Base(path), control.Suffix)
	t := tree{path: path, about: about{Program: name}}
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		if pid, err := strconv.Atoi(name[i+1:]); err == nil {
			t.about.Program, t.about.PID = name[:i], pid
		}
	}
	to := control.Transport(path)
	to.DisableKeepAlives = true
	t.http = &http.Client{Transport: to}
	return t
}

// look asks a tree what it is. It returns false if nothing listens there.
func (t *tree) look(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	t.err = t.get(ctx, "", nil, &t.about)
	return !gone(t.err)
}

// gone reports whether the error is that no tree listens.
func gone(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist)
}

// directories returns where sockets are: for root also those of other users.
func directories() []string {
	dirs := control.Directories()
	if os.Geteuid() == 0 {
		for _, pattern := range []string{"/run/user/*/coppice", filepath.Join(os.TempDir(), "coppice-*")} {
			found, _ := filepath.Glob(pattern) // the patterns are good
			dirs = append(dirs, found...)
		}
	}
	return dirs
}

// is reports whether the tree is meant: by its program's name or its pid; "" = any.
func (t *tree) is(which string) bool {
	return which == "" || t.about.Program == which || strconv.Itoa(t.about.PID) == which
}

// trees returns the trees that run, by directory and name. Those whose socket says that they are
// not meant are not asked: one that hangs holds nothing up for the others.
func trees(ctx context.Context, dirs []string, which string) (found []tree) {
	seen := map[string]bool{}
	for _, dir := range dirs {
		if st, err := os.Lstat(dir); err != nil || !st.IsDir() || st.Mode().Perm()&0o077 != 0 || seen[dir] {
			continue // another user could have put a socket there
		}
		seen[dir] = true
		names, _ := filepath.Glob(filepath.Join(dir, "*"+control.Suffix)) // a directory that cannot be read has none for us
		for _, name := range names {
			if t := newTree(name); t.about.PID == 0 || t.is(which) {
				found = append(found, t)
			}
		}
	}
	alive := make([]bool, len(found))
	var all sync.WaitGroup
	for i := range found {
		all.Go(func() { alive[i] = found[i].look(ctx) })
	}
	all.Wait()
	i := -1
	return slices.DeleteFunc(found, func(tree) bool { i++; return !alive[i] })
}

// pick returns the tree that is meant: by name, pid or path; "" = the only one.
func pick(ctx context.Context, dirs []string, which string) (tree, error) {
	if strings.Contains(which, "/") {
		t := newTree(which)
		if !t.look(ctx) {
			return t, fail(codeNoTree, "coppicectl ls lists the trees that run", "no tree listens at %s", which)
		}
		return t, t.err
	}
	found := slices.DeleteFunc(trees(ctx, dirs, which), func(t tree) bool { return !t.is(which) })
	switch {
	case len(found) == 1:
		return found[0], found[0].err
	case len(found) == 0 && which == "":
		return tree{}, fail(codeNoTree, "start a program that uses coppice.Main or Serve; a socket elsewhere is named by --tree PATH; looked in "+strings.Join(dirs, ", "), "no tree of this user runs here")
	case len(found) == 0:
		return tree{}, fail(codeNoTree, "coppicectl ls lists the trees that run", "no tree %q runs here", which)
	}
	names := make([]string, len(found))
	for i, t := range found {
		names[i] = fmt.Sprintf("%s (pid %d)", t.about.Program, t.about.PID)
	}
	return tree{}, fail(codeUsage, "say which with --tree NAME, --tree PID or --tree PATH", "%d trees run here: %s", len(found), strings.Join(names, ", "))
}

// do sends a request. The caller closes the body of the response, whose status is 200.
func (t *tree) do(ctx context.Context, method, path string, query url.Values, header http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://tree/v1/"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fail(codeUsage, hint(400), "%w", err)
	}
	req.Header = header
	resp, err := t.http.Do(req)
	if err != nil {
		return nil, t.lost(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what came says enough
	var answer struct{ Error string }
	if json.Unmarshal(b, &answer) != nil || answer.Error == "" {
		answer.Error = strings.TrimSpace(string(b))
	}
	next := hint(resp.StatusCode)
	if resp.StatusCode == http.StatusNotFound && strings.Contains(answer.Error, "no such path") {
		next = "the program was built with an older Coppice that does not have that yet"
	}
	return nil, fail(codeOf(resp.StatusCode), next, "%s", answer.Error)
}

// lost says how a connection was lost.
func (t *tree) lost(ctx context.Context, err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // its URL says nothing
	}
	late := errors.Is(err, context.DeadlineExceeded) || errors.Is(context.Cause(ctx), context.DeadlineExceeded)
	switch {
	case ctx.Err() != nil && !late:
		return err // it was interrupted
	case gone(err):
		return fail(codeLost, "coppicectl ls lists the trees that run; the program's log says how it ended", "%s (pid %d) has ended: %w", t.about.Program, t.about.PID, err)
	case errors.Is(err, os.ErrPermission):
		return fail(codeFailed, "use it as the tree's user, or as root", "%w", err)
	case late:
		return fail(codeLost, "look at the program's log: its master may hang", "%s (pid %d) does not answer in time", t.about.Program, t.about.PID)
	}
	return fail(codeLost, "coppicectl ls shows whether the tree still runs", "the connection to %s (pid %d) was lost: %w", t.about.Program, t.about.PID, err)
}

// text returns the body of an answer.
func (t *tree) text(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	resp, err := t.do(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, t.lost(ctx, err)
	}
	return b, nil
}

// get decodes an answer.
func (t *tree) get(ctx context.Context, path string, query url.Values, v any) error {
	b, err := t.text(ctx, path, query)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fail(codeFailed, "is there a tree at "+t.path+"?", "the answer is none of a tree: %w", err)
	}
	return nil
}

// alive passes on what is read, and puts the timer off.
type alive struct {
	io.Reader
	timer *time.Timer
}

func (a alive) Read(p []byte) (int, error) {
	a.timer.Reset(quietTime)
	return a.Reader.Read(p)
}

// errStream is why a stream is lost that ended by itself.
var errStream = errors.New("the stream has ended")

// stream calls each for what a request's stream brings, until each fails or the stream is lost, and
// returns that error.
func (t *tree) stream(ctx context.Context, method, path string, query url.Values, last string, each func(message) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(quietTime, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	header := http.Header{"Accept": {"text/event-stream"}}
	if last != "" {
		header.Set("Last-Event-ID", last)
	}
	resp, err := t.do(ctx, method, path, query, header)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var own error
	err = readMessages(alive{resp.Body, timer}, func(m message) error {
		own = each(m)
		return own
	})
	if own != nil {
		return own
	}
	return t.lost(ctx, cmp.Or(err, errStream))
}

// follow is stream with a new connection, from the last cursor on, whenever one is lost. It ends
// when ctx ends, each fails, or the tree has ended.
func (t *tree) follow(ctx context.Context, path string, query url.Values, last string, each func(message) error) error {
	attempts := 5
	if t.upgrades {
		attempts = 7 // 13 s
	}
	for failed := 0; ; failed++ {
		err := t.stream(ctx, http.MethodGet, path, query, last, func(m message) error {
			failed, last = 0, m.id
			return each(m)
		})
		if ctx.Err() != nil {
			return nil
		}
		if f, ok := errors.AsType[*failure](err); !ok || f.code != codeLost || failed == attempts ||
			gone(err) && !(t.upgrades && (failed < 3 || errors.Is(err, syscall.ECONNREFUSED))) { // an orderly end removes the socket
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(100 * time.Millisecond << failed):
		}
	}
}
