// Yardstick measures what Coppice costs, beside small programs that do the same with nothing in
// between.
//
//	go -C .bench run ./yardstick handles|messages|roundtrip|actors [-seconds 3] [-rounds 1] [-pin]
//	go -C .bench run ./yardstick accept [-workers 2] [-policy round-robin] [-inflight 16]
//	go -C .bench run ./yardstick accept -serve [-addr 127.0.0.1:0] [-workers 2] \
//		[-policy round-robin]
//	go -C .bench run ./yardstick http [-workers 2] [-policy round-robin] [-connections 100]
//	go -C .bench run ./yardstick tracing [-workers 2] [-policy round-robin] [-inflight 16]
//	go -C .bench run ./yardstick respawn [-workers 2]
//	go -C .bench run ./yardstick calls [-workers 2] -table
//	go -C .bench run ./yardstick starts|growth
//	go -C .bench run ./yardstick page [-rounds 7] [-seconds 1] [-write ../docs]
//
// It prints one line of JSON for each row:
//
//	{"name","unit","value","cpu_ns_per_op","p50_us","p99_us"}
//
// value is operations per second, cpu_ns_per_op the processor time (user and system) of all
// processes that are measured. Rows that begin with "peer_", and http_keepalive_plain, are the
// small programs (peers/): C, if gcc is there, Node likewise, and plain Go. With -rounds each row
// runs that often, all rows in turn, so that rows of one round can be compared with each other;
// noise of the machine then hits all alike. -pin keeps all processes on one core.
//
// handles, messages and roundtrip measure fdipc between two processes, which both count.
// "came_back" counts handles that the child did not claim in time, on a machine too busy to run it;
// they are offered again.
//
// actors measures actors of this process beside protoactor's own (bare_), and of other processes:
// told 64 bytes, and asked with 1 or 64 asks in flight, by the master (process_) or by a sibling
// over a lane (sibling_); beside protoactor's remote, and a bare socket for one ask in flight.
//
// accept measures a tree that hands connections over: each is accepted, passed to one of -workers,
// gets one byte and is closed. The load is -inflight connections at a time, from this program,
// which does not count; the tree does, listener process and master included. p50_us and p99_us are
// from connect to the byte, and "jain" tells how even the shares of the workers were. -serve is the
// tree alone, for a load from outside.
//
// http measures requests over connections that stay open.
//
// tracing is the tree of accept with tracing off, and with no, one in a hundred and all connections
// sampled; this program is the collector.
//
// respawn kills a worker with SIGKILL as soon as it is ready, again and again, beside Node's
// cluster. value, p50_us and p99_us are from the kill until the next one is ready, of respawn_spare
// from when the death is known until a spare has claimed a connection, of respawn_spare_kill
// from the kill until then; cpu_ns_per_op is of a kill.
//
// calls are calls of a function in a worker, one at a time in each and twice as many at once as
// there are workers, that read a byte of each page of an input of 100 bytes, 100 kB and 10 MB:
// beside Node's worker threads (which copy the input, or transfer it, and are no processes),
// Python's multiprocessing.Pool, protoactor's remote, and the least that a pool of Go processes can
// be. With 10 MB also without a copy for each call: a jobs.View, a file in memory, shared memory.
//
// starts are starts of programs (starts/) until their main, first starts of trees until all workers
// are ready, and what is private to an idle process. growth is what an operator does with a whole
// tree, by its size.
//
// page runs the rows that docs/performance.md shows, of which peers are there, and what grows, each
// for a second if -seconds is not given: seven rounds take some ten minutes. It compares what ran
// in the same round, and prints or writes medians and quartiles of the ratios.
//
// -table prints Markdown at the end, the medians of all rounds, instead of JSON.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// result is one line of the output.
type result struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
	CPU   float64 `json:"cpu_ns_per_op"`
	P50   float64 `json:"p50_us,omitempty"`
	P99   float64 `json:"p99_us,omitempty"`
	Jain  float64 `json:"jain,omitempty"`      // of the workers' shares: 1 is even
	Back  int     `json:"came_back,omitempty"` // handles that were revoked from a starved child, and offered again
}

// row is one measurement. run takes about d and returns errSkip, wrapped, if it cannot be done
// here.
type row struct {
	name string
	run  func(d time.Duration) (result, error)
}

// command is what the program's first argument names.
type command struct {
	rows  func() []row
	flags func(*flag.FlagSet) // its own, beside those that all have; nil without
	serve func()              // for -serve, which flags defines; does not return
	page  bool                // the rows of all the others
}

func commands() map[string]command {
	return map[string]command{
		"handles":   {rows: handleRows},
		"messages":  {rows: messageRows},
		"roundtrip": {rows: roundtripRows},
		"accept":    {rows: acceptRows, flags: acceptFlags, serve: serveAccept},
		"actors":    {rows: actorRows},
		"http":      {rows: httpRows, flags: httpFlags, serve: serveHTTP},
		"tracing":   {rows: tracingRows, flags: tracingFlags, serve: serveTracing},
		"respawn":   {rows: respawnRows, flags: respawnFlags, serve: serveRespawn},
		"calls":     {rows: callRows, flags: callFlags, serve: serveCalls},
		"starts":    {rows: startRows},
		"growth":    {rows: growthRows, serve: serveGrowth},
		"page":      {rows: pageRows, flags: pageFlags, page: true},
	}
}

func main() {
	if child() {
		return
	}
	fs := flag.NewFlagSet("yardstick", flag.ExitOnError)
	seconds := fs.Float64("seconds", 3, "length of a row")
	rounds := fs.Int("rounds", 1, "how often to run all rows")
	pin := fs.Bool("pin", false, "keep all processes on one core")
	only := fs.String("only", "", "rows whose name contains this")
	serve := fs.Bool("serve", false, "accept, http, tracing, respawn, calls, growth: serve only, until a signal")
	asTable := fs.Bool("table", false, "print a table in Markdown at the end")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: yardstick handles|messages|roundtrip|actors|accept|http|tracing|respawn|calls|starts|growth|page [flags]")
		fs.PrintDefaults()
	}
	var cmd command
	if len(os.Args) > 1 {
		cmd = commands()[os.Args[1]]
	}
	if cmd.rows == nil {
		fs.Usage()
		os.Exit(2)
	}
	if cmd.flags != nil {
		cmd.flags(fs)
	}
	if cmd.page { // it has some 40 rows
		_ = fs.Set("seconds", "1")
	}
	_ = fs.Parse(os.Args[2:])
	if *pin {
		if err := pinSelf(); err != nil {
			fmt.Fprintln(os.Stderr, "yardstick: not pinned:", err)
		}
	}
	if *serve {
		if cmd.serve == nil {
			fs.Usage()
			os.Exit(2)
		}
		cmd.serve()
	}
	defer removeBuilt()
	out := json.NewEncoder(os.Stdout)
	skipped, all := make(map[string]bool), make(map[string][]result)
	rows, load := cmd.rows(), loadAverage()
	for r := range *rounds {
		for i := range rows {
			row := rows[(i+r)%len(rows)] // no row always follows the same one
			if cmd.page {
				fmt.Fprintf(os.Stderr, "\r\x1b[K%d of %d: %s", r*len(rows)+i+1, *rounds*len(rows), row.name)
			}
			if skipped[row.name] || !strings.Contains(row.name, *only) {
				continue
			}
			res, err := row.run(time.Duration(*seconds * float64(time.Second)))
			if err != nil {
				fmt.Fprintf(os.Stderr, "yardstick: %s: %v\n", row.name, err)
				skipped[row.name] = true
				continue
			}
			res.Name = row.name
			if all[row.name] = append(all[row.name], res); !*asTable && !cmd.page {
				_ = out.Encode(res)
			}
		}
	}
	switch {
	case cmd.page:
		fmt.Fprintln(os.Stderr)
		if err := printPage(all, load); err != nil {
			fmt.Fprintln(os.Stderr, "yardstick:", err)
		}
	case *asTable:
		printTable(rows, all)
	}
}

// printTable prints the median of each column of each row.
func printTable(rows []row, all map[string][]result) {
	fmt.Println("| row | value | p50 µs | p99 µs | CPU µs per operation |\n| --- | --- | --- | --- | --- |")
	for _, row := range rows {
		of := all[row.name]
		if len(of) == 0 {
			continue
		}
		median := func(column func(result) float64) float64 {
			values := make([]float64, 0, len(of))
			for _, r := range of {
				values = append(values, column(r))
			}
			slices.Sort(values)
			return values[len(values)/2]
		}
		fmt.Printf("| %s | %.4g %s | %.4g | %.4g | %.4g |\n", row.name,
			median(func(r result) float64 { return r.Value }), of[0].Unit,
			median(func(r result) float64 { return r.P50 }), median(func(r result) float64 { return r.P99 }),
			median(func(r result) float64 { return r.CPU })/1e3)
	}
}
