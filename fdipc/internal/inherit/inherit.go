// Package inherit takes the marker variables of a child process out of the
// environment before any other package can start a process that would inherit them.
//
// It imports nothing but syscall, so that its init runs as early as Go allows: packages
// are initialized in the order of their dependencies.
package inherit

import "syscall"

// Channel is the variable that holds the number of the channel's descriptor. Child is
// the prefix of further variables for the child.
const (
	Channel = "COPPICE_CHANNEL"
	Child   = "COPPICE_CHILD_"
)

var (
	// Set reports whether Channel was in the environment.
	Set bool
	// FD is the channel, -1 if there is none.
	FD = -1
	// Bad names the variable that made no sense, with the reason; empty if all is well.
	Bad string
	// Env holds the variables that began with Child, under their whole names.
	Env map[string]string
)

func init() {
	for _, kv := range syscall.Environ() {
		k, v := cut(kv)
		switch {
		case k == Channel:
			Set = true
			FD, Bad = channel(v)
		case len(k) > len(Child) && k[:len(Child)] == Child:
			if Env == nil {
				Env = make(map[string]string)
			}
			Env[k] = v
		default:
			continue
		}
		_ = syscall.Unsetenv(k) // fails on an empty name only
	}
	if !Set && Env != nil {
		Bad = Channel + ": missing, but " + Child + "* is set"
	}
}

// channel checks the value of Channel and makes the descriptor close-on-exec and non-blocking.
func channel(v string) (fd int, bad string) {
	n := 0
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' || n > 1<<20 {
			return -1, Channel + "=" + v + ": not the number of a descriptor"
		}
		n = n*10 + int(v[i]-'0')
	}
	if len(v) == 0 || n < 3 {
		return -1, Channel + "=" + v + ": not the number of a descriptor"
	}
	if why := adopt(n); why != "" {
		return -1, Channel + "=" + v + ": " + why
	}
	return n, ""
}

func cut(kv string) (k, v string) {
	for i := range len(kv) {
		if kv[i] == '=' {
			return kv[:i], kv[i+1:]
		}
	}
	return kv, ""
}
