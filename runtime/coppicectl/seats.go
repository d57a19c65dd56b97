package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/seats"
)

// hostFiles adds the commands that work on files and on the engine's socket, and need no tree.
func (c *command) hostFiles(to *cobra.Command) {
	add := func(to *cobra.Command, use, short string, n int, next string, do func(ctx context.Context, args []string) (string, error)) *cobra.Command {
		cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(n), RunE: func(cmd *cobra.Command, args []string) error {
			done, err := do(cmd.Context(), args)
			if err != nil {
				return fail(codeFailed, next, "%w", err)
			}
			c.printValue(map[string]string{"done": done}, func() []string { return []string{clean(done)} })
			return nil
		}}
		to.AddCommand(cmd)
		return cmd
	}
	const files = "a file that exists is left as it is: move it away, or take other names"
	add(to, "ca CLUSTER", "Make a certificate authority for a cluster: CLUSTER.pem and CLUSTER.key", 1, files, func(_ context.Context, args []string) (string, error) {
		cluster := args[0]
		return fmt.Sprintf("wrote %s.pem, for every host, and %s.key, for who makes certificates: keep it off the hosts", cluster, cluster),
			hosts.WriteCA(cluster+".pem", cluster+".key", cluster)
	})
	var ca string
	cert := add(to, "cert CLUSTER HOST", "Make the certificate of a host, good for a year: HOST.pem and HOST.key", 2, files, func(_ context.Context, args []string) (string, error) {
		cluster, host := args[0], args[1]
		if ca == "" {
			ca = cluster
		}
		return fmt.Sprintf("wrote %s.pem and %s.key, for host %s of cluster %s", host, host, host, cluster),
			hosts.WriteCert(ca+".pem", ca+".key", host+".pem", host+".key", cluster, host)
	})
	cert.Flags().StringVar(&ca, "ca", "", "`PATH` of the authority's files without .pem and .key; without it CLUSTER")

	seat := &cobra.Command{Use: "seat", Short: "Replace a seat of the engine, or recover the engine when a majority is lost", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	to.AddCommand(seat)
	const engine = "docs/hosts.md, when a seat, or a majority, is lost"
	var dir, from string
	var limit time.Duration
	replace := add(seat, "replace HOST", "Put the member of a host's seat out, and let its next one in, with what the others send it", 1, engine, func(ctx context.Context, args []string) (string, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return "host " + args[0] + " has an empty seat now, which its member takes within seconds of its start", seats.Replace(ctx, dir, args[0])
	})
	replace.Flags().DurationVar(&limit, "timeout", time.Minute, "how long the other seats may need to agree")
	recovery := add(seat, "recover", "Make the seat of this host the only one of a new engine, as a majority is lost for good", 0, engine, func(_ context.Context, _ []string) (string, error) {
		return "the member in " + dir + " makes the engine anew within seconds of its start; then replace the other seats one by one", seats.Recover(dir, from)
	})
	recovery.Flags().StringVar(&from, "snapshot", "", "begin with a snapshot in `FILE`; without it with what the directory has")
	for _, cmd := range []*cobra.Command{replace, recovery} {
		cmd.Flags().StringVar(&dir, "dir", "", "the engine's `DIRECTORY` on this host; required")
		if err := cmd.MarkFlagRequired("dir"); err != nil {
			panic(err) // the flag is above
		}
	}
}
