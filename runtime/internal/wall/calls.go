package wall

import (
	"slices"
	"strings"
	"sync"
)

// newer are the system calls from 424 on, which have one number on all architectures.
const newer = `
	pidfd_send_signal io_uring_setup io_uring_enter io_uring_register open_tree move_mount fsopen
	fsconfig fsmount fspick pidfd_open clone3 close_range openat2 pidfd_getfd faccessat2
	process_madvise epoll_pwait2 mount_setattr quotactl_fd landlock_create_ruleset landlock_add_rule
	landlock_restrict_self memfd_secret process_mrelease futex_waitv set_mempolicy_home_node
	cachestat fchmodat2 map_shadow_stack futex_wake futex_wait futex_requeue statmount listmount
	lsm_get_self_attr lsm_set_self_attr lsm_list_modules mseal setxattrat getxattrat listxattrat
	removexattrat open_tree_attr file_getattr file_setattr listns rseq_slice_yield
`

const firstNewer = 424

// numbers maps the names of system calls to their numbers here.
var numbers = sync.OnceValue(func() map[string]uint32 {
	all := map[string]uint32{}
	for first, text := range map[uint32]string{0: names, firstNewer: newer} {
		for i, name := range strings.Fields(text) {
			all[name] = first + uint32(i)
		}
	}
	delete(all, "-")
	return all
})

// byNumber has the names of system calls by their numbers, "" for a number that is not known.
var byNumber = sync.OnceValue(func() []string {
	all := make([]string, firstNewer+len(strings.Fields(newer)))
	for name, n := range numbers() {
		all[n] = name
	}
	return all
})

// Name returns the name of a system call; "" if it is not known.
func Name(number uint64) string {
	if all := byNumber(); number < uint64(len(all)) {
		return all[number]
	}
	return ""
}

// compute is what Go's runtime, files and connections that a process has got take.
const compute = `
	read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat openat2
	creat close close_range lseek stat fstat lstat newfstatat statx statfs fstatfs access faccessat
	faccessat2 readlink readlinkat getdents getdents64 getcwd chdir fchdir dup dup2 dup3 fcntl flock
	ioctl fadvise64 readahead fsync fdatasync sync_file_range syncfs truncate ftruncate fallocate
	copy_file_range sendfile splice tee vmsplice pipe pipe2 mkdir mkdirat rmdir unlink unlinkat rename
	renameat renameat2 link linkat symlink symlinkat chmod fchmod fchmodat fchmodat2 chown fchown
	lchown fchownat utime utimes utimensat futimesat umask getxattr lgetxattr fgetxattr listxattr
	llistxattr flistxattr setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr
	poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
	epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
	inotify_init inotify_init1 inotify_add_watch inotify_rm_watch memfd_create
	mmap munmap mprotect mremap madvise mincore msync mlock mlock2 munlock mlockall munlockall brk
	membarrier futex futex_waitv futex_wake futex_wait futex_requeue get_robust_list set_robust_list
	set_tid_address rseq arch_prctl prctl seccomp landlock_create_ruleset landlock_add_rule
	landlock_restrict_self mseal pkey_alloc pkey_free pkey_mprotect get_mempolicy
	exit exit_group sched_yield sched_getaffinity sched_setaffinity sched_getparam
	sched_getscheduler sched_getattr sched_get_priority_max sched_get_priority_min getcpu getpriority
	setpriority ioprio_get nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
	getrusage getrlimit setrlimit prlimit64 sysinfo uname getrandom restart_syscall pause alarm
	getitimer setitimer timer_create timer_settime timer_gettime timer_getoverrun timer_delete
	getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgid getpgrp
	getsid capget rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait
	rt_sigsuspend sigaltstack tgkill wait4 waitid
	recvfrom recvmsg recvmmsg sendto sendmsg sendmmsg getsockopt setsockopt getsockname getpeername
	shutdown accept accept4 socketpair
`

// service adds what a server takes that connects, listens and starts programs.
const service = compute + `
	connect bind listen execve execveat fork vfork kill tkill setpgid setsid pidfd_open
	pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo
`

// profiles are the calls that each profile allows, besides clone and socket, which are allowed in
// part.
var profiles = map[string]func() map[string]bool{"": set(""), "compute": set(compute), "service": set(service)}

// set returns a function that returns the words of text.
func set(text string) func() map[string]bool {
	return sync.OnceValue(func() map[string]bool {
		all := map[string]bool{}
		for _, word := range strings.Fields(text) {
			all[word] = true
		}
		return all
	})
}

// allows reports whether a call is allowed.
func (s *Rules) allows(call string) bool {
	if slices.Contains(s.Deny, call) {
		return false
	}
	listed := s.Syscalls == "" && len(s.Allow) == 0 // all but those that are denied
	return listed || slices.Contains(s.Allow, call) || profiles[s.Syscalls]()[call]
}
