package process

// Rlimit is one resource limit of a process.
type Rlimit struct {
	Name       string // one of RlimitNames
	Soft, Hard uint64 // all bits set = none
}

// RlimitNames are the names that an [Rlimit] may have, as in ulimit and
// limits.conf.
var RlimitNames = []string{
	"as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc",
	"rss", "rtprio", "rttime", "sigpending", "stack",
}
