package process

import "strconv"

// Rlimit is one resource limit of a process.
type Rlimit struct {
	Name       string // one of RlimitNames
	Soft, Hard uint64 // all bits set = none
}

// String names the option and its value: "Rlimits nofile 512:unlimited".
func (l Rlimit) String() string {
	one := func(v uint64) string {
		if v == ^uint64(0) {
			return "unlimited"
		}
		return strconv.FormatUint(v, 10)
	}
	return "Rlimits " + l.Name + " " + one(l.Soft) + ":" + one(l.Hard)
}

// RlimitNames are the names that an [Rlimit] may have, as in ulimit and limits.conf.
var RlimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}
