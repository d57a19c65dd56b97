package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// find returns the directory of the cgroup of a process, by its files mountinfo (proc(5)) and
// cgroup (cgroups(7)).
func find(mountinfo, cgroup string) (string, error) {
	mounts, err := os.ReadFile(mountinfo)
	if err != nil {
		return "", err
	}
	groups, err := os.ReadFile(cgroup)
	if err != nil {
		return "", err
	}
	dirs := directories(string(mounts), string(groups))
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, procsFile)); err == nil { // nothing else is mounted above it
			return dir, nil
		}
	}
	return "", fmt.Errorf("%w: no cgroup of version 2 that this program is in is mounted", errors.ErrUnsupported)
}

// directories returns where the cgroup of version 2 that the text of a file cgroup names is seen.
func directories(mountinfo, cgroup string) (dirs []string) {
	path := ""
	for line := range strings.Lines(cgroup) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			path = p
		}
	}
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path+"/", "/../") { // outside of the namespace
		return nil
	}
	for line := range strings.Lines(mountinfo) {
		before, after, _ := strings.Cut(line, " - ")
		f, typ := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(typ) == 0 || typ[0] != "cgroup2" {
			continue
		}
		root, mount := escaped.Replace(f[3]), escaped.Replace(f[4])
		if root == "/" {
			root = ""
		}
		if below, ok := strings.CutPrefix(path+"/", root+"/"); ok {
			dirs = append(dirs, filepath.Join(mount, below))
		}
	}
	return dirs
}

// escaped are the bytes of a path that the kernel writes otherwise in mountinfo.
var escaped = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// parseKeys returns the numbers of a file of lines "key number", such as memory.events. Others are
// left out.
func parseKeys(b []byte) map[string]uint64 {
	keys := map[string]uint64{}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) == 2 {
			if n, err := strconv.ParseUint(string(f[1]), 10, 64); err == nil {
				keys[string(f[0])] = n
			}
		}
	}
	return keys
}

// parseNumber returns the number in the n-th word of a file; 0 for "max", and if there is none.
func parseNumber(b []byte, n int) int64 {
	f := bytes.Fields(b)
	if n >= len(f) {
		return 0
	}
	v, _ := strconv.ParseInt(string(f[n]), 10, 64)
	return max(0, v)
}

// parsePressure returns what a file such as cpu.pressure says: "some avg10=0.00 … total=0", and the
// same for full.
func parsePressure(b []byte) (p Pressure) {
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 0 {
			continue
		}
		var percent float64
		var total uint64
		for _, kv := range f[1:] {
			key, value, _ := strings.Cut(string(kv), "=")
			switch key {
			case "avg10":
				if v, err := strconv.ParseFloat(value, 64); err == nil && v >= 0 && v <= 100 {
					percent = v
				}
			case "total":
				total, _ = strconv.ParseUint(value, 10, 64)
			}
		}
		switch string(f[0]) {
		case "some":
			p.SomePercent, p.SomeSeconds = percent, micro(total)
		case "full":
			p.FullPercent, p.FullSeconds = percent, micro(total)
		}
	}
	return p
}

func micro(n uint64) float64 { return float64(n) / 1e6 }
