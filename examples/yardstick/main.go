// Yardstick measures what fdipc costs between two processes, beside small programs that do the same
// with nothing in between.
//
//	go run ./examples/yardstick handles|messages|roundtrip [-seconds 3] [-rounds 1] [-pin]
//
// It prints one line of JSON for each row:
//
//	{"name","unit","value","cpu_ns_per_op","p50_us","p99_us"}
//
// value is operations per second, cpu_ns_per_op the processor time of both processes together. Rows that
// begin with "peer_" are the small programs (peers/): C, if gcc is there, and plain Go. With
// -rounds each row runs that often, all rows in turn, so that rows of one round can be compared
// with each other; noise of the machine then hits all alike. -pin keeps both processes on one core.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
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
}

// row is one measurement. run takes about d and returns errSkip, wrapped, if it cannot be done here.
type row struct {
	name string
	run  func(d time.Duration) (result, error)
}

func main() {
	if child() {
		return
	}
	fs := flag.NewFlagSet("yardstick", flag.ExitOnError)
	seconds := fs.Float64("seconds", 3, "length of a row")
	rounds := fs.Int("rounds", 1, "how often to run all rows")
	pin := fs.Bool("pin", false, "keep both processes on one core")
	only := fs.String("only", "", "rows whose name contains this")
	fs.Usage = func() {
		fmt.Fprintln(fs.Output(), "usage: yardstick handles|messages|roundtrip [flags]")
		fs.PrintDefaults()
	}
	if len(os.Args) < 2 {
		fs.Usage()
		os.Exit(2)
	}
	_ = fs.Parse(os.Args[2:])
	all := map[string]func() []row{"handles": handleRows, "messages": messageRows, "roundtrip": roundtripRows}
	set, ok := all[os.Args[1]]
	if !ok {
		fs.Usage()
		os.Exit(2)
	}
	if *pin {
		if err := pinSelf(); err != nil {
			fmt.Fprintln(os.Stderr, "yardstick: not pinned:", err)
		}
	}
	out := json.NewEncoder(os.Stdout)
	skipped := make(map[string]bool)
	rows := set()
	for r := range *rounds {
		for i := range rows {
			row := rows[(i+r)%len(rows)] // no row always follows the same one
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
			_ = out.Encode(res)
		}
	}
}
