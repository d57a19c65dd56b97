// Coppicectl shows and steers the trees of programs built on Coppice, by the endpoint that
// docs/control.md describes. README.md has a transcript.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends at once
	c := &command{out: os.Stdout, err: os.Stderr, dirs: directories()}
	code := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// command is one run of coppicectl.
type command struct {
	out, err io.Writer
	dirs     []string // where sockets are
	which    string   // --tree
	output   string   // --output
}

func (c *command) run(ctx context.Context, args []string) int {
	root := c.root()
	root.SetArgs(args)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	f := failureOf(err)
	if f.err.Error() != "" {
		first, rest, _ := strings.Cut(strings.TrimPrefix(f.Error(), "coppice: "), "\n")
		fmt.Fprintln(c.err, "coppicectl: "+clean(first))
		for line := range strings.Lines(rest) {
			fmt.Fprintln(c.err, "  "+clean(strings.TrimRight(line, "\n")))
		}
	}
	if f.next != "" {
		fmt.Fprintln(c.err, "  next: "+c.hinted(f.next))
	}
	return f.code
}

// hinted is a hint whose commands are for the tree that was named.
func (c *command) hinted(next string) string {
	if c.which == "" {
		return next
	}
	const name = "coppicectl "
	same := []string{}
	for _, other := range []string{"ls", "as new", "help", "COMMAND"} { // they take no tree, or are none
		same = append(same, name+other, name+other)
	}
	return strings.NewReplacer(append(same, name, name+"-t "+clean(c.which)+" ")...).Replace(next)
}

// view is what standard output is.
func (c *command) view() view {
	v := view{now: time.Now()}
	if f, ok := c.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		v.width, v.height, _ = term.GetSize(int(f.Fd())) // 0 = without end
		v.colors = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
	return v
}

func (c *command) json() bool { return c.output == "json" }

func (c *command) lines(lines []string) {
	for _, l := range lines {
		fmt.Fprintln(c.out, l)
	}
}

// print prints JSON as it came, or the lines that text makes.
func (c *command) print(raw []byte, text func() []string) {
	if c.json() {
		fmt.Fprintf(c.out, "%s\n", bytes.TrimSpace(raw))
		return
	}
	c.lines(text())
}

func (c *command) printValue(v any, text func() []string) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // it is one of ours
	}
	c.print(b, text)
}

// show asks for a path, decodes the answer, and prints it.
func show[T any](c *command, ctx context.Context, t *tree, path string, query url.Values, text func(T) []string) error {
	var raw json.RawMessage
	if err := t.get(ctx, path, query, &raw); err != nil {
		return err
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		return fail(codeFailed, "is coppicectl as new as the program?", "the answer cannot be read: %w", err)
	}
	c.print(raw, func() []string { return text(v) })
	return nil
}

// write asks for a change, shows how it goes on, and returns why it failed.
func (c *command) write(ctx context.Context, t *tree, path string, query url.Values) error {
	var workers []worker
	if err := t.get(ctx, "workers", nil, &workers); err != nil {
		return err
	}
	var end *result
	p, v, erase := newProgress(workers), c.view(), ""
	p.reload, p.upgrade = path == "reload", path == "upgrade"
	tell := func(raw []byte) error {
		var e event
		if err := json.Unmarshal(raw, &e); err != nil {
			return err
		}
		line, transient := p.add(e)
		if c.json() {
			fmt.Fprintf(c.out, "%s\n", raw)
			return nil
		}
		switch {
		case line == "":
		case !transient:
			line, _, _ = strings.Cut(line, "\n")
			fmt.Fprintln(c.out, erase+clean(line))
			erase = ""
		case v.width > 0:
			erase = "\r\x1b[K"
			fmt.Fprint(c.out, erase+shorten(clean(line), v.width-1))
		}
		return nil
	}
	began, last := time.Now(), ""
	err := t.stream(ctx, http.MethodPost, path, query, "", func(m message) error {
		if m.event == "done" {
			end = new(result)
			return json.Unmarshal(m.data, end)
		}
		last = m.id
		return tell(m.data)
	})
	if p.upgrading && path == "upgrade" && end == nil && ctx.Err() == nil { // the exec has cut the connection
		t.upgrades = true
		err = t.follow(ctx, "events", nil, last, func(m message) error {
			if err := tell(m.data); err != nil || p.upgraded == nil {
				return err
			}
			end = &result{OK: p.upgraded.Error == "", Error: p.upgraded.Error, Took: time.Since(began).Seconds()}
			if !end.OK {
				end.Status = http.StatusConflict
			}
			return errStream // it has ended for us
		})
	}
	fmt.Fprint(c.out, erase)
	switch {
	case end == nil && ctx.Err() != nil && t.upgrades:
		return fail(codeFailed, "coppicectl events -f shows how it ends", "interrupted; the upgrade goes on")
	case end == nil && ctx.Err() != nil:
		return fail(codeFailed, "coppicectl events shows how the tree went back", "interrupted, and with it what was asked for")
	case end == nil:
		return err
	case end.OK || c.json():
		c.printValue(end, func() []string { return []string{p.end(*end)} })
	}
	if end.OK {
		return nil
	}
	next := hint(end.Status)
	if path == "reload" && end.Status != http.StatusGatewayTimeout {
		next = "coppicectl why reload tells more, coppicectl crashes has the report; the old processes work on"
	} else if path == "upgrade" && end.Status != http.StatusGatewayTimeout {
		next = upgradeHint
	}
	return fail(codeOf(end.Status), next, "%s", end.Error)
}

const upgradeHint = "coppicectl events and the program's log tell more; the old program serves on"

// plan prints what an upgrade would change.
func (c *command) plan(ctx context.Context, t *tree) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	resp, err := t.do(ctx, http.MethodPost, "upgrade/check", nil, nil)
	if f, ok := errors.AsType[*failure](err); ok && f.next == hint(http.StatusConflict) {
		f.next = upgradeHint
	}
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct {
		Plan []string `json:"plan"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return t.lost(ctx, err)
	}
	c.printValue(answer, func() []string {
		if len(answer.Plan) == 0 {
			return []string{"nothing changes but the program"}
		}
		return answer.Plan
	})
	return nil
}

// entries prints what a path lists, at most n of it, and with follow what comes.
func entries[T any](c *command, ctx context.Context, t *tree, path string, query url.Values, n int, follow bool, cursor func(T) string, text func(view, T) []string) error {
	last := ""
	one := func(raw []byte) error {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		last = cursor(v)
		c.print(raw, func() []string { return text(c.view(), v) })
		return nil
	}
	var all []json.RawMessage
	if err := t.get(ctx, path, query, &all); err != nil {
		return err
	}
	if n > 0 {
		all = all[max(0, len(all)-n):]
	}
	for _, raw := range all {
		if err := one(raw); err != nil {
			return err
		}
	}
	if !follow {
		return nil
	}
	return t.follow(ctx, path, query, last, func(m message) error { return one(m.data) })
}
