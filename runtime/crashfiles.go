package coppice

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/netactor"
)

// CrashFiles returns a Hooks.Crash that makes a directory in dir for each report: report.txt,
// report.json, and stacks.txt if the process has printed the stacks of its goroutines. The newest
// keep (0 = 100) are kept, and of these as many as have 64 MiB together. The names begin with the
// time, so that they sort, and end in .crash.
//
// If dir does not exist, it is created for its owner alone, because the output of a program may be
// secret. No symbolic link of another user than root and the master's is followed, and a dir that
// is another user's, or that all may write to, is not used. A report that cannot be written is
// logged by its first line.
func CrashFiles(dir string, keep int) func(CrashReport) {
	if keep <= 0 {
		keep = 100
	}
	return func(r CrashReport) {
		if err := writeCrash(dir, keep, r); err != nil {
			first, _, _ := strings.Cut(r.String(), "\n")
			slog.Error("a crash report could not be written", "dir", dir, "err", err, "report", first)
		}
	}
}

const (
	crashEnding = ".crash"
	partEnding  = crashEnding + ".part" // while it is written

	maxCrashName  = 2 * maxName // of a deep tree; a file's name has 255 bytes at most
	maxCrashBytes = 64 << 20    // of all reports in a directory
)

func writeCrash(dir string, keep int, r CrashReport) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	at, err := netactor.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer at.Close()
	name := strings.ReplaceAll(r.Name[max(0, len(r.Name)-maxCrashName):], "/", "_") // the time and the process tell two apart
	name = fmt.Sprintf("%s-%s-%d", r.Time.UTC().Format("20060102T150405.000000"), name, r.Exit.PID)
	err = writeReport(at, name+partEnding, r)
	if err == nil {
		err = at.Rename(name+partEnding, name+crashEnding) // whole, or not at all
	}
	if err != nil {
		_ = at.RemoveAll(name + partEnding)
	}
	return errors.Join(err, prune(at, keep, maxCrashBytes)) // also to make room on a full disk
}

// writeReport makes the directory of a report.
func writeReport(at *os.Root, name string, r CrashReport) error {
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	err = at.Mkdir(name, 0o700) // never an existing one
	for file, text := range map[string]string{"report.txt": r.String(), "report.json": string(encoded) + "\n", "stacks.txt": plainText(r.Dump)} {
		if err == nil && text != "" {
			err = at.WriteFile(path.Join(name, file), []byte(text), 0o600)
		}
	}
	return err
}

// isReport matches the names of reports: those that are whole, those that a master that was killed
// has left, and those of releases that made a file of each form.
var isReport = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^\d{8}T\d{6}\.\d{6}-.*\.crash(|\.part|\.(txt|json)(\.part)?)$`)
})

// prune removes the oldest reports until keep are left of at most
// so many bytes. The newest stays in any case.
func prune(at *os.Root, keep int, bytes int64) error {
	entries, err := fs.ReadDir(at.FS(), ".")
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return cmp.Compare(b.Name(), a.Name()) }) // newest first
	var errs []error
	seen := 0
	for _, e := range entries {
		if !isReport().MatchString(e.Name()) {
			continue
		}
		seen++
		bytes -= sizeBelow(at, e.Name())
		if seen > keep || bytes < 0 && seen > 1 {
			errs = append(errs, at.RemoveAll(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// sizeBelow returns the bytes of the files of a report.
func sizeBelow(at *os.Root, name string) (n int64) {
	_ = fs.WalkDir(at.FS(), name, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
