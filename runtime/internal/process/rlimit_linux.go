package process

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// rlimits maps the names to this architecture's numbers.
var rlimits = map[string]int{
	"as": unix.RLIMIT_AS, "core": unix.RLIMIT_CORE, "cpu": unix.RLIMIT_CPU, "data": unix.RLIMIT_DATA,
	"fsize": unix.RLIMIT_FSIZE, "memlock": unix.RLIMIT_MEMLOCK, "msgqueue": unix.RLIMIT_MSGQUEUE,
	"nice": unix.RLIMIT_NICE, "nofile": unix.RLIMIT_NOFILE, "nproc": unix.RLIMIT_NPROC,
	"rss": unix.RLIMIT_RSS, "rtprio": unix.RLIMIT_RTPRIO, "rttime": unix.RLIMIT_RTTIME,
	"sigpending": unix.RLIMIT_SIGPENDING, "stack": unix.RLIMIT_STACK,
}

// Number returns the limit's number for setrlimit(2).
func (l Rlimit) Number() int { return rlimits[l.Name] }

// remedy returns what helps if the limit cannot be set.
func (l Rlimit) remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EINVAL):
		return "the soft limit is above the hard one"
	case l.Name == "nofile":
		return "to raise the hard limit takes CAP_SYS_RESOURCE, and it is at most fs.nr_open"
	}
	return "to raise the hard limit takes CAP_SYS_RESOURCE"
}
