package coppice

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coppice-go/coppice/netactor"
)

// CrashFiles returns a Hooks.Crash that writes each report into dir, as text and as JSON, and keeps
// the newest keep reports of each form (0 = 100). The file names begin with the time, so that they
// sort, and end in .crash.txt and .crash.json. If dir does not exist, it is created for its owner
// alone, because the output of a program may be secret. A report that cannot be written is logged
// by its first line.
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
	crashText = ".crash.txt"
	crashJSON = ".crash.json"

	maxCrashName = 2 * maxName // of a deep tree; a file's name has 255 bytes at most
)

func writeCrash(dir string, keep int, r CrashReport) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	encoded, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	name := strings.ReplaceAll(r.Name[max(0, len(r.Name)-maxCrashName):], "/", "_") // the time and the process tell two apart
	base := fmt.Sprintf("%s-%s-%d", r.Time.UTC().Format("20060102T150405.000000"), name, r.Exit.PID)
	return errors.Join(
		writeWhole(filepath.Join(dir, base+crashText), []byte(r.String())),
		writeWhole(filepath.Join(dir, base+crashJSON), append(encoded, '\n')),
		prune(dir, crashText, keep),
		prune(dir, crashJSON, keep),
	)
}

// writeWhole writes a file that exists whole or not at all.
func writeWhole(name string, b []byte) error {
	part := name + ".part"
	f, err := netactor.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // never an existing file or link
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(part)
		return err
	}
	return os.Rename(part, name)
}

// prune removes the oldest files with that ending until keep are left.
func prune(dir, ending string, keep int) error {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !strings.HasSuffix(e.Name(), ending) })
	var errs []error
	for _, e := range entries[:max(0, len(entries)-keep)] {
		errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
	}
	return errors.Join(errs...)
}
