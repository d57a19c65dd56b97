package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/dashboard"
	"github.com/spf13/cobra"
)

// root returns the command line.
func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "coppicectl",
		Short: "See and steer the trees of programs built on Coppice",
		Long: `See and steer the trees of programs built on Coppice, by the endpoint that docs/control.md describes.

Exit codes: 0 done; 1 failed; 2 the command line cannot be used; 3 no such tree runs; 4 the tree has
ended, or its connection was lost. An error ends with what to do next.`,
		SilenceErrors: true, SilenceUsage: true,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().StringVarP(&c.which, "tree", "t", "", "the tree: `NAME`, pid or path of its socket; not needed if only one runs")
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "text", "`text|json`")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Lookup("output").Usage == "`text|json`" && c.output != "text" && c.output != "json" {
			return fmt.Errorf("--output %q is neither text nor json", c.output)
		}
		return nil
	}
	c.reads(root)
	c.writes(root)
	c.jobsCommands(root)
	c.hostsCommands(root)
	c.files(root)
	return root
}

// add adds a command whose function gets the tree that is meant.
func (c *command) add(to *cobra.Command, use, short string, args cobra.PositionalArgs, do func(ctx context.Context, t *tree, args []string) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		t, err := pick(ctx, c.dirs, c.which)
		if err == nil {
			err = do(ctx, &t, args)
		}
		if _, ok := errors.AsType[*failure](err); err == nil || ok {
			return err
		}
		if ctx.Err() != nil {
			return fail(codeFailed, "", "interrupted")
		}
		return fail(codeFailed, "is coppicectl as new as the program?", "%w", err)
	}}
	if strings.Contains(use, "NAME") {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return c.names(cmd.Context()), cobra.ShellCompDirectiveNoFileComp
		}
	}
	to.AddCommand(cmd)
	return cmd
}

// names returns the names of processes, for a shell that completes one.
func (c *command) names(ctx context.Context) (names []string) {
	t, err := pick(ctx, c.dirs, c.which)
	var workers []worker
	if err != nil || t.get(ctx, "workers", nil, &workers) != nil {
		return nil
	}
	for _, w := range workers {
		names = append(names, w.Name)
	}
	return names
}

func (c *command) reads(root *cobra.Command) {
	root.AddCommand(&cobra.Command{Use: "ls", Short: "List the trees of this machine", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		all := trees(cmd.Context(), c.dirs, c.which)
		if len(all) == 0 && !c.json() {
			_, err := pick(cmd.Context(), c.dirs, c.which)
			return err
		}
		type row struct {
			about
			Path  string `json:"path"`
			Error string `json:"error,omitempty"`
		}
		rows := []row{}
		for _, t := range all {
			r := row{t.about, t.path, ""}
			if t.err != nil {
				r.Error = t.err.Error()
			}
			rows = append(rows, r)
		}
		c.printValue(rows, func() []string { return listing(c.view(), all) })
		return nil
	}})

	var live bool
	cmd := c.add(root, "tree", "Draw the tree; with -w as it lives", cobra.NoArgs, func(ctx context.Context, t *tree, _ []string) error {
		if live {
			return c.watch(ctx, t)
		}
		var workers []worker
		if err := t.get(ctx, "workers", nil, &workers); err != nil {
			return err
		}
		return show(c, ctx, t, "tree", nil, func(n node) []string { return picture(c.view(), n, workers, nil) })
	})
	cmd.Flags().BoolVarP(&live, "watch", "w", false, "redraw it at each change, until Ctrl-C")

	c.add(root, "ps", "List the processes with what they use", cobra.NoArgs, func(ctx context.Context, t *tree, _ []string) error {
		return show(c, ctx, t, "workers", nil, func(ws []worker) []string { return processes(c.view(), ws) })
	})

	c.add(root, "why NAME", "Say in a sentence why a child is as it is, or with reload as NAME how the last reload went", cobra.ExactArgs(1), func(ctx context.Context, t *tree, args []string) error {
		f := facts{now: time.Now()}
		if err := errors.Join(t.get(ctx, "tree", nil, &f.root), t.get(ctx, "workers", nil, &f.workers), t.get(ctx, "listeners", nil, &f.listeners), t.get(ctx, "events", nil, &f.events), t.get(ctx, "crashes", nil, &f.crashes)); err != nil {
			return err
		}
		sentence, ok := f.why(args[0])
		if !ok {
			return fail(codeFailed, hint(404), "nothing in the tree has the name %q", args[0])
		}
		sentence = clean(sentence)
		c.printValue(map[string]string{"name": args[0], "why": sentence}, func() []string { return []string{sentence} })
		return nil
	})

	var follow bool
	var n int
	following := func(cmd *cobra.Command) {
		cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what comes, until Ctrl-C")
		cmd.Flags().IntVarP(&n, "lines", "n", 100, "the latest `N` of what is kept; 0 = all of it")
	}
	following(c.add(root, "events", "Show what has happened in the tree", cobra.NoArgs, func(ctx context.Context, t *tree, _ []string) error {
		return entries(c, ctx, t, "events", nil, n, follow, func(e event) string { return fmt.Sprint(e.Cursor) }, eventText)
	}))
	following(c.add(root, "logs [NAME…]", "Show what the processes have printed; NAME is a process or a pool", cobra.ArbitraryArgs, func(ctx context.Context, t *tree, args []string) error {
		if err := t.printed(ctx, args); err != nil {
			return err
		}
		return entries(c, ctx, t, "logs", url.Values{"process": args}, n, follow, func(l logLine) string { return fmt.Sprint(l.Cursor) }, logText)
	}))

	var full bool
	cmd = c.add(root, "crashes [N]", "Show the latest N crash reports, 3 by default, newest first", cobra.MaximumNArgs(1), func(ctx context.Context, t *tree, args []string) error {
		n := "3"
		if len(args) > 0 {
			n = args[0]
		}
		return show(c, ctx, t, "crashes", url.Values{"n": {n}}, func(all []crash) (lines []string) {
			for _, r := range all {
				lines = append(lines, crashText(c.view(), r, full)...)
			}
			if len(all) == 0 {
				lines = []string{"no process has crashed"}
			}
			return lines
		})
	})
	cmd.Flags().BoolVar(&full, "full", false, "all lines of each report")
	c.add(cmd, "show [NUMBER]", "Show all that is known of one end, the latest by default: what it used, served and printed, its stacks, and the events around it", cobra.MaximumNArgs(1), func(ctx context.Context, t *tree, args []string) error {
		b, err := t.text(ctx, "crashes/text", url.Values{"number": {strings.TrimPrefix(strings.Join(args, ""), "#")}})
		if err != nil {
			return err
		}
		text := cleanLines(string(b))
		c.printValue(map[string]string{"report": text}, func() []string { return []string{strings.TrimSuffix(text, "\n")} })
		return nil
	})

	c.add(root, "stacks NAME", "Show the stacks of a process; master is one too", cobra.ExactArgs(1), func(ctx context.Context, t *tree, args []string) error {
		b, err := t.text(ctx, "stacks", url.Values{"process": args})
		if err != nil {
			return err
		}
		text := cleanLines(string(b))
		c.printValue(map[string]string{"process": args[0], "stacks": text}, func() []string { return []string{strings.TrimSuffix(text, "\n")} })
		return nil
	})

	c.add(root, "diff FILE", "Compare the configuration that runs with a file of coppice.Describe; 1 if they differ", cobra.ExactArgs(1), func(ctx context.Context, t *tree, args []string) error {
		name := args[0]
		if name == "-" {
			name = "/dev/stdin"
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return fail(codeUsage, "name a file that a program or a test has written with coppice.Describe", "%w", err)
		}
		running, err := t.text(ctx, "config", nil)
		if err != nil {
			return err
		}
		lines := difference(string(b), string(running))
		c.printValue(map[string]any{"same": len(lines) == 0, "lines": append([]string{}, lines...)}, func() []string { return lines })
		if len(lines) > 0 {
			return fail(codeFailed, "a reload takes over code and sizes; anything else needs a restart of the program", "%s and what runs differ in %d lines (- in the file, + running)", args[0], len(lines))
		}
		return nil
	})
}

// printed returns an error for a name that no process and no pool has, nor a line that is kept.
func (t *tree) printed(ctx context.Context, names []string) error {
	for _, name := range names {
		var lines []logLine
		var workers []worker
		if err := errors.Join(t.get(ctx, "logs", url.Values{"process": {name}}, &lines), t.get(ctx, "workers", nil, &workers)); err != nil {
			return err
		}
		var known []string
		for _, w := range workers {
			known = append(known, w.Name, cmp.Or(w.Pool, w.Name))
		}
		slices.Sort(known)
		known = slices.Compact(known)
		if len(lines) == 0 && !slices.Contains(known, name) {
			if len(known) > 20 {
				known = append(known[:20], "…")
			}
			return fail(codeFailed, hint(404), "nothing is kept of %q, and no process or pool has that name; there are %s", name, strings.Join(known, ", "))
		}
	}
	return nil
}

func (c *command) writes(root *cobra.Command) {
	var timeout time.Duration
	wait, dry := true, false
	add := func(use, short string, args cobra.PositionalArgs, parameters ...string) *cobra.Command {
		path, _, _ := strings.Cut(use, " ")
		cmd := c.add(root, use, short, args, func(ctx context.Context, t *tree, args []string) error {
			if dry {
				return c.plan(ctx, t)
			}
			query := url.Values{}
			for i, name := range parameters {
				query.Set(name, args[i])
			}
			if timeout != 0 {
				query.Set("timeout", timeout.String())
			}
			return c.write(ctx, t, path, query)
		})
		cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after this `time`; 0 = never")
		return cmd
	}
	add("upgrade", "Replace the whole program, its master too, by the one that is now at its path; 0 when that is done", cobra.NoArgs).Flags().
		BoolVar(&dry, "dry-run", false, "ask the new program what it would change, and change nothing")
	reload := add("reload", "Replace all processes by those of the program as it is now; 0 when that is done", cobra.NoArgs)
	reload.Flags().BoolVar(&wait, "wait", true, "wait for the end; always so, because a reload without its client goes back")
	reload.PreRunE = func(*cobra.Command, []string) error {
		if !wait {
			return errors.New("a reload without its client goes back: kill -HUP of the master starts one that nothing waits for")
		}
		return nil
	}
	add("scale POOL N", "Give a pool N workers", cobra.ExactArgs(2), "pool", "size")
	add("canary promote|abort", "Decide for a new generation that is being judged: forward, or back", cobra.ExactArgs(1), "do")
	add("restart NAME", "Replace a process without a gap", cobra.ExactArgs(1), "process")
	add("stop NAME", "Let a process finish its work and end", cobra.ExactArgs(1), "process")
	add("kill NAME", "End a process at once", cobra.ExactArgs(1), "process")
	add("pause LISTENER", "Let a listener accept nothing", cobra.ExactArgs(1), "listener")
	add("resume LISTENER", "Let a paused listener accept again", cobra.ExactArgs(1), "listener")

	c.add(root, "loglevel [debug|info|warn|error|default]", "Show or set the level of the master's log", cobra.MaximumNArgs(1), func(ctx context.Context, t *tree, args []string) error {
		if len(args) == 0 {
			c.printValue(map[string]string{"log_level": t.about.LogLevel}, func() []string {
				if t.about.LogLevel == "" {
					return []string{"default: the program's own"}
				}
				return []string{t.about.LogLevel}
			})
			return nil
		}
		if args[0] == "default" {
			args[0] = ""
		}
		return c.write(ctx, t, "loglevel", url.Values{"level": args})
	}).ValidArgs = []string{"debug", "info", "warn", "error", "default"}
}

// files adds what is written to a file.
func (c *command) files(root *cobra.Command) {
	const toFile = "`FILE`, or - for standard output, or json for a line about the file; without it the name is made"
	var cpu, trace time.Duration
	var heap bool
	var kind string
	cmd := c.add(root, "profile NAME", "Take a profile of a process; master is one too", cobra.ExactArgs(1), func(ctx context.Context, t *tree, args []string) error {
		query, path := url.Values{"process": args}, kind
		long, next := cpu, "go tool pprof -top"
		switch {
		case heap:
			path = "heap"
		case trace > 0:
			path, long, next = "trace", trace, "go tool trace"
		case cpu > 0:
			path = "profile"
		}
		if long > 0 {
			query.Set("seconds", strconv.Itoa(max(1, int(long.Round(time.Second)/time.Second))))
		}
		name := strings.NewReplacer("/", "-", "profile", "cpu").Replace(args[0] + "." + path)
		file, err := c.save(ctx, t, "pprof/"+path, query, name+".pprof", long+answerTime)
		if err == nil && file != "" {
			fmt.Fprintf(c.err, "wrote %s; see it with: %s %s\n", file, next, file)
		}
		return err
	})
	cmd.Flags().DurationVar(&cpu, "cpu", 0, "of the CPU, for this `time`; 10s if no kind of profile is said")
	cmd.Flags().DurationVar(&trace, "trace", 0, "an execution trace, for this `time`")
	cmd.Flags().BoolVar(&heap, "heap", false, "of the memory in use")
	cmd.Flags().StringVar(&kind, "kind", "", "`KIND`: allocs, goroutine, mutex, block, threadcreate")
	cmd.Flags().StringVarP(&c.output, "output", "o", "text", toFile)
	cmd.Flags().Lookup("output").DefValue = "" // it is not called text
	cmd.MarkFlagsMutuallyExclusive("cpu", "trace", "heap", "kind")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if kinds := []string{"", "allocs", "goroutine", "mutex", "block", "threadcreate"}; !slices.Contains(kinds, kind) {
			return fmt.Errorf("--kind %q is none of %s", kind, strings.Join(kinds[1:], ", "))
		}
		if !heap && kind == "" && cpu == 0 && trace == 0 {
			cpu = 10 * time.Second
		}
		if min(cpu, trace) < 0 || max(cpu, trace) > 5*time.Minute {
			return fmt.Errorf("%v is not between 1s and 5m", cpu+trace)
		}
		return nil
	}

	var listen string
	cmd = c.add(root, "page", "Serve the tree's page on a loopback port, and print its address", cobra.NoArgs, func(ctx context.Context, t *tree, _ []string) error {
		return c.servePage(ctx, t, listen)
	})
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`ADDRESS`; port 0 picks one")

	cmd = c.add(root, "bundle", "Save all that an expert needs for a diagnosis, in one tar", cobra.NoArgs, func(ctx context.Context, t *tree, _ []string) error {
		file, err := c.save(ctx, t, "bundle", nil, "bundle.tar", time.Minute)
		if err == nil && file != "" {
			fmt.Fprintf(c.err, "wrote %s; look through it before you send it: it has the program's log and stacks\n", file)
		}
		return err
	})
	cmd.Flags().StringVarP(&c.output, "output", "o", "text", toFile)
	cmd.Flags().Lookup("output").DefValue = ""
}

// servePage serves the tree's page on a loopback port until ctx ends. A port has no owner whom the
// kernel would vouch for, so a client must know the path, which only this user reads.
func (c *command) servePage(ctx context.Context, t *tree, addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fail(codeFailed, "name a free loopback address with --listen", "%w", err)
	}
	secret := "/" + rand.Text()
	mux := http.NewServeMux()
	mux.Handle(secret+"/", http.StripPrefix(secret, dashboard.Proxy(t.path)))
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	fmt.Fprintf(c.out, "http://%s%s/\n", ln.Addr(), secret)
	fmt.Fprintln(c.err, "open it in a browser of this machine; the address alone lets a program steer the tree; Ctrl-C ends it")
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fail(codeFailed, "", "%w", err)
	}
	return nil
}

// save writes an answer to the file of --output, and returns the file's name for the message about
// it; "" = no message: save has printed the name as JSON, or the answer went to standard output.
func (c *command) save(ctx context.Context, t *tree, path string, query url.Values, name string, limit time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	resp, err := t.do(ctx, "GET", path, query, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	how := os.O_TRUNC
	if c.output == "text" || c.json() { // a name of ours does not replace a file
		program := strings.ReplaceAll(clean(t.about.Program), "/", "-") // what it says need not be true
		name, how = fmt.Sprintf("%s.%s.%s", program, time.Now().Format("20060102T150405"), name), os.O_EXCL
	} else {
		name = c.output
	}
	var n int64
	if c.output == "-" {
		_, err = io.Copy(c.out, resp.Body)
		name = ""
	} else {
		n, err = writeFile(name, how, resp.Body)
	}
	if _, ok := errors.AsType[*os.PathError](err); ok {
		return "", fail(codeFailed, "name a file that can be written with -o FILE", "%w", err)
	} else if err != nil {
		return "", t.lost(ctx, err)
	}
	if c.json() {
		c.printValue(map[string]any{"file": name, "bytes": n}, nil)
		return "", nil
	}
	return name, nil
}

// writeFile writes a file, and removes it if it is not whole. An error of the file is a PathError.
func writeFile(name string, how int, from io.Reader) (int64, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|how, 0o600)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(f, from)
	if closing := f.Close(); err == nil {
		err = closing
	}
	if st, failed := os.Lstat(name); err != nil && failed == nil && st.Mode().IsRegular() { // /dev/full is none
		_ = os.Remove(name)
	}
	return n, err
}
