package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// hostRow is a host in the answer of /v1/hosts.
type hostRow struct {
	Name, Boot, Address, State string
	Since                      *time.Time
	Why                        string
	Seat, Session              bool
	Names                      int
	Silent                     string
	Asked                      *time.Time
	Tree                       *struct {
		Pools []struct {
			Path                   string
			Workers, Ready, Failed int
			Generations            []int
		}
	}
}

// pools shows the pools of a host, but those of the cluster itself as long as they are well.
func (h *hostRow) pools() (s string) {
	if h.Tree == nil {
		return ""
	}
	for _, p := range h.Tree.Pools {
		if (p.Path == "gateway" || p.Path == "member") && p.Ready == p.Workers {
			continue
		}
		s += fmt.Sprintf("%s %d/%d", p.Path, p.Ready, p.Workers)
		for i, g := range p.Generations {
			s += []string{" g", "+"}[min(i, 1)] + fmt.Sprint(g)
		}
		s += ", "
	}
	return strings.TrimSuffix(s, ", ")
}

type hostsAnswer struct {
	Cluster, Host string
	Engine        bool
	Unavailable   string
	Hosts         []hostRow
}

// hostsCommands adds the commands for a cluster.
func (c *command) hostsCommands(root *cobra.Command) {
	hosts := &cobra.Command{Use: "hosts", Short: "See and steer the cluster of the tree", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	root.AddCommand(hosts)
	c.hostFiles(hosts)
	c.add(hosts, "members", "List the hosts as this one knows them", cobra.NoArgs, func(ctx context.Context, t *tree, _ []string) error {
		return show(c, ctx, t, "hosts", nil, func(a hostsAnswer) []string { return members(c.view(), a) })
	})
	settle := 10 * time.Second
	reload := c.add(hosts, "reload [HOST…]", "Reload all hosts, or some, one after the other, this one last; when one fails all go back", cobra.ArbitraryArgs, func(ctx context.Context, t *tree, args []string) error {
		return c.write(ctx, t, "hosts/reload", url.Values{"host": args, "settle": {settle.String()}})
	})
	reload.Flags().DurationVar(&settle, "settle", settle, "how long each has to stay well before the next one's turn")
}

// members shows the hosts of a cluster.
func members(v view, a hostsAnswer) []string {
	var rows [][]cell
	for _, h := range a.Hosts {
		state := cell{h.State, yellow}
		switch h.State {
		case "self", "up":
			state.color = green
		case "unreachable":
			state.color = red
		}
		session, names := "", ""
		if a.Engine {
			session, names = "none", fmt.Sprint(h.Names)
			if h.Session {
				session = "live"
			}
		}
		seat := ""
		if h.Seat {
			seat = "seat"
		}
		why := h.Why
		if h.State == "up" && h.Silent != "" {
			state, why = cell{"silent", red}, h.Silent
		}
		if h.Silent != "" && h.Asked != nil {
			why = strings.TrimPrefix(why+"; its pools are as "+ago(v.now, h.Asked)+" ago", "; ")
		}
		rows = append(rows, row(h.Name, h.Boot, h.Address, state, ago(v.now, h.Since), session, seat, names, h.pools(), why))
	}
	lines := table([]column{{"HOST", false, 0}, {"BOOT", false, 2}, {"ADDRESS", false, 1}, {"STATE", false, 0}, {"FOR", true, 0}, {"SESSION", false, 0}, {"SEAT", false, 3}, {"NAMES", true, 4}, {"POOLS", false, 0}, {"", false, 0}}, rows, v.width, v.colors)
	if a.Unavailable != "" {
		lines = append(lines, clean("the engine is not reached, so sessions and names are as they were last: "+a.Unavailable))
	}
	return lines
}
