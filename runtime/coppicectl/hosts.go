package main

import (
	"context"
	"fmt"
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
		rows = append(rows, row(h.Name, h.Boot, h.Address, state, ago(v.now, h.Since), session, seat, names, h.Why))
	}
	lines := table([]column{{"HOST", false, 0}, {"BOOT", false, 2}, {"ADDRESS", false, 1}, {"STATE", false, 0}, {"FOR", true, 0}, {"SESSION", false, 0}, {"SEAT", false, 3}, {"NAMES", true, 4}, {"", false, 0}}, rows, v.width, v.colors)
	if a.Unavailable != "" {
		lines = append(lines, clean("the engine is not reached, so sessions and names are as they were last: "+a.Unavailable))
	}
	return lines
}
