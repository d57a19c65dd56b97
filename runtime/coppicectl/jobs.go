package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// jobsPool is a pool of jobs: what the actor of its queue shows.
type jobsPool struct {
	Pool  string `json:"pool"`
	actor string
	State json.RawMessage `json:"state"`
	jobsState
}

type jobsState struct {
	Waiting, Running, Rerun, Workers int
	Oldest                           float64 `json:"oldest_seconds"`
	Reruns                           int
	Ends                             map[string]uint64
	Runs                             []struct {
		Worker, Function, Key string
		Run                   int
		Progress              string
		For                   float64 `json:"for_seconds"`
	}
	Quarantine []quarantinedKey
}

type quarantinedKey struct {
	Key             string
	Released        bool
	Deaths, Refused int
	Since           float64 `json:"since_seconds"`
	Probe           float64 `json:"probe_seconds"`
	Expiry          float64 `json:"expiry_seconds"`
	Reason          string
}

// MarshalJSON leaves out what was decoded of the state.
func (p jobsPool) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{"pool": p.Pool, "state": p.State})
}

// jobs returns the pools of jobs, or the one of that name.
func (t *tree) jobs(ctx context.Context, names []string) ([]jobsPool, error) {
	return t.pools(ctx, names, "jobs")
}

// pools returns the pools that have an actor of one of the kinds, or the one of that name.
func (t *tree) pools(ctx context.Context, names []string, kinds ...string) ([]jobsPool, error) {
	var actors []struct{ Path, Kind string }
	if err := t.get(ctx, "actors", nil, &actors); err != nil {
		return nil, err
	}
	pools, known := []jobsPool{}, []string{}
	for _, a := range actors {
		name := path.Dir(a.Path)
		if !slices.Contains(kinds, a.Kind) {
			continue
		}
		if known = append(known, name); len(names) > 0 && names[0] != name {
			continue
		}
		var answer struct{ Value json.RawMessage }
		p := jobsPool{Pool: name, actor: a.Path}
		if err := t.get(ctx, "actors/state", url.Values{"actor": {a.Path}}, &answer); err != nil {
			return nil, err
		}
		if p.State = answer.Value; json.Unmarshal(p.State, &p.jobsState) != nil {
			return nil, errors.New("the state of " + a.Path + " cannot be read")
		}
		pools = append(pools, p)
	}
	if len(names) > 0 && len(pools) == 0 {
		return nil, fail(codeFailed, "coppicectl jobs lists the pools of jobs", "no pool of jobs is called %q; there are: %s", names[0], strings.Join(known, ", "))
	}
	return pools, nil
}

func (c *command) jobsCommands(root *cobra.Command) {
	c.add(root, "jobs [POOL]", "Show the pools of jobs: what waits, what runs, and how calls have ended", cobra.MaximumNArgs(1), func(ctx context.Context, t *tree, args []string) error {
		pools, err := t.jobs(ctx, args)
		if err == nil {
			c.printValue(pools, func() []string { return jobsText(c.view(), pools) })
		}
		return err
	})
	group := &cobra.Command{Use: "quarantine", Short: "Show or release the keys of calls and requests that killed workers"}
	root.AddCommand(group)
	c.add(group, "list [POOL]", "List the keys that are quarantined, or were", cobra.MaximumNArgs(1), func(ctx context.Context, t *tree, args []string) error {
		pools, err := t.pools(ctx, args, kindsOfQuarantine...)
		if err != nil {
			return err
		}
		type keys struct {
			Pool string          `json:"pool"`
			Keys json.RawMessage `json:"quarantine"`
		}
		all := []keys{}
		for _, p := range pools {
			k := keys{Pool: p.Pool}
			if err := json.Unmarshal(p.State, &k); err != nil {
				return err
			}
			all = append(all, k)
		}
		c.printValue(all, func() []string { return quarantineText(c.view(), pools) })
		return nil
	})
	for do, short := range map[string]string{
		"release": "Let the calls and requests of a key run again, in the pool, or in each that has it quarantined",
		"forget":  "Remove all that is known of a key, in the pool, or in each that knows it",
	} {
		c.add(group, do+" KEY [POOL]", short, cobra.RangeArgs(1, 2), func(ctx context.Context, t *tree, args []string) error {
			pools, err := t.pools(ctx, args[1:], kindsOfQuarantine...)
			if err != nil {
				return err
			}
			having := func(key string) []jobsPool {
				return slices.DeleteFunc(slices.Clone(pools), func(p jobsPool) bool {
					return !slices.ContainsFunc(p.Quarantine, func(k quarantinedKey) bool { return k.Key == key && (do == "forget" || !k.Released) })
				})
			}
			key, with := args[0], having(args[0])
			if unquoted, err := strconv.Unquote(key); err == nil && len(with) == 0 { // as list shows it
				key, with = unquoted, having(unquoted)
			}
			if len(with) == 0 {
				return fail(codeFailed, "coppicectl quarantine list has the keys", "key %q is not quarantined", args[0])
			}
			for _, p := range with {
				if !c.json() {
					fmt.Fprint(c.out, clean(p.Pool), ": ")
				}
				if err := c.write(ctx, t, "actors/operate", url.Values{"actor": {p.actor}, "do": {do}, "what": {key}}); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// kindsOfQuarantine are the kinds of actors that have quarantined keys.
var kindsOfQuarantine = []string{"jobs", "quarantine"}

// jobsText renders the pools, and then what their workers run.
func jobsText(v view, pools []jobsPool) []string {
	if len(pools) == 0 {
		return []string{"the tree has no pool of jobs"}
	}
	var rows, runs [][]cell
	for _, p := range pools {
		quarantined, oldest := cell{"", red}, ""
		if n := len(slices.DeleteFunc(slices.Clone(p.Quarantine), func(k quarantinedKey) bool { return k.Released })); n > 0 {
			quarantined.text = fmt.Sprint(n)
		}
		if p.Waiting > 0 {
			oldest = seconds(p.Oldest)
		}
		var ends []string
		for _, end := range slices.Sorted(maps.Keys(p.Ends)) {
			ends = append(ends, fmt.Sprintf("%s %d", end, p.Ends[end]))
		}
		rows = append(rows, row(p.Pool, fmt.Sprint(p.Waiting), oldest, fmt.Sprint(p.Running), p.Workers, p.Rerun, p.Reruns, quarantined, strings.Join(ends, ", ")))
		for _, r := range p.Runs {
			runs = append(runs, row(r.Worker, r.Function, seconds(r.For), r.Run, keyText(r.Key), r.Progress))
		}
	}
	lines := table([]column{
		{"POOL", false, 0}, {"WAITING", true, 0}, {"OLDEST", true, 1}, {"RUNNING", true, 0}, {"WORKERS", true, 3}, {"TO RETRY", true, 4}, {"RETRIES", true, 5}, {"QUARANTINED", true, 2}, {"ENDED", false, 6},
	}, rows, v.width, v.colors)
	if len(runs) > 0 {
		lines = append(lines, "")
		lines = append(lines, table([]column{{"WORKER", false, 0}, {"FUNCTION", false, 0}, {"FOR", true, 0}, {"RUN", true, 2}, {"KEY", false, 1}, {"PROGRESS", false, 3}}, runs, v.width, v.colors)...)
	}
	return lines
}

// keyText returns a key as it is, or quoted as in Go if a terminal would not show that.
func keyText(key string) string {
	if clean(key) != key {
		return strconv.Quote(key)
	}
	return key
}

// quarantineText renders a row for each key.
func quarantineText(v view, pools []jobsPool) []string {
	var rows [][]cell
	for _, p := range pools {
		for _, k := range p.Quarantine {
			state, probe := cell{"quarantined", red}, seconds(k.Probe)
			if k.Released {
				state, probe = cell{"released", green}, ""
			}
			rows = append(rows, row(p.Pool, keyText(k.Key), state, k.Deaths, k.Refused, seconds(k.Since), probe, seconds(k.Expiry), k.Reason))
		}
	}
	if rows == nil {
		return []string{"no key is quarantined"}
	}
	return table([]column{
		{"POOL", false, 0}, {"KEY", false, 0}, {"STATE", false, 0}, {"DEATHS", true, 1}, {"REFUSED", true, 2}, {"SINCE", true, 4}, {"NEXT PROBE", true, 3}, {"FORGOTTEN IN", true, 6}, {"LAST DEATH", false, 5},
	}, rows, v.width, v.colors)
}
