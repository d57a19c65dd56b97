package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// programs returns where those of PostgreSQL are, as Debian has them, "" = nowhere.
func programs() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is well-formed
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// server starts a server of the system's PostgreSQL with its data in a new directory,
// and returns how to reach it, and what ends it and removes the data.
func server() (dsn string, end func() error, err error) {
	programs := programs()
	if programs == "" {
		return "", nil, errors.New("set DSN: there is no PostgreSQL in /usr/lib/postgresql")
	}
	dir, err := os.MkdirTemp("", "durable")
	if err != nil {
		return "", nil, err
	}
	run := func(name string, args ...string) error {
		args = append([]string{filepath.Join(programs, name)}, args...)
		if os.Getuid() == 0 { // which PostgreSQL refuses
			args = append([]string{"runuser", "-u", "postgres", "--"}, args...)
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	data := filepath.Join(dir, "data")
	end = func() error {
		return errors.Join(run("pg_ctl", "-D", data, "-m", "immediate", "stop"), os.RemoveAll(dir))
	}
	if os.Getuid() == 0 {
		if err := exec.Command("chown", "postgres", dir).Run(); err != nil {
			return "", nil, errors.Join(fmt.Errorf("chown: %w", err), os.RemoveAll(dir))
		}
	}
	err = run("initdb", "-D", data, "-A", "trust", "-U", "durable", "--no-sync")
	if err == nil {
		err = run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"),
			"-o", "-c fsync=off -c listen_addresses= -k "+dir, "start")
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return fmt.Sprintf("host=%s user=durable dbname=postgres", dir), end, nil
}
