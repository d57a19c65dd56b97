// Package wall makes the walls around a process, of what its Rules say: the rules of Landlock, the
// filter of seccomp, the capabilities. Package process raises them in the child, between fork and
// exec.
package wall

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/coppice-go/coppice/runtime/internal/seal"
)

// Rules have the fields of coppice.Sandbox.
type Rules struct {
	NoNewPrivileges bool
	NoFiles         bool
	Read            []string
	Write           []string
	Execute         []string
	NoTCP           bool
	Connect         []uint16
	Bind            []uint16
	Scoped          bool
	NoNetwork       bool
	NoCapabilities  bool
	Capabilities    []string
	Syscalls        string
	Allow           []string
	Deny            []string
	DenyWithError   bool
	BestEffort      bool
}

// IsZero reports whether there is no wall.
func (s *Rules) IsZero() bool {
	return !s.NoNewPrivileges && !s.files() && !s.tcp() && !s.Scoped && !s.NoNetwork && !s.caps() && !s.filters()
}

func (s *Rules) files() bool {
	return s.NoFiles || len(s.Read)+len(s.Write)+len(s.Execute) > 0
}
func (s *Rules) tcp() bool     { return s.NoTCP || len(s.Connect)+len(s.Bind) > 0 }
func (s *Rules) caps() bool    { return s.NoCapabilities || len(s.Capabilities) > 0 }
func (s *Rules) filters() bool { return s.Syscalls != "" || len(s.Allow)+len(s.Deny) > 0 }

// Seal returns the variable by which a worker denies itself to execute a program; "" = it may.
func (s *Rules) Seal() string {
	if !s.filters() || s.allows("execve") {
		return ""
	}
	how := "SIGSYS"
	if s.DenyWithError {
		how = seal.Fail
	}
	if s.BestEffort {
		how += seal.Best
	}
	return seal.Var + "=" + how
}

// Validate reports the fields that make no sense. program is set for a program that is not this
// one.
func (s *Rules) Validate(bad func(field string, value any, why string), program bool) {
	absolute := func(field string, paths []string) {
		for _, p := range paths {
			if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) {
				bad(field, fmt.Sprintf("%q", p), "is not an absolute path")
			}
		}
	}
	absolute("Read", s.Read)
	absolute("Write", s.Write)
	absolute("Execute", s.Execute)
	for _, c := range s.Capabilities {
		if !slices.Contains(capabilities, c) {
			bad("Capabilities", fmt.Sprintf("%q", c), "is none of "+strings.Join(capabilities, ", "))
		}
	}
	if _, ok := profiles[s.Syscalls]; !ok {
		bad("Syscalls", fmt.Sprintf("%q", s.Syscalls), "is none of service and compute")
	}
	known := func(field string, calls []string) {
		for _, c := range calls {
			if _, ok := numbers()[c]; !ok && names != "" {
				bad(field, fmt.Sprintf("%q", c), "is no system call of this architecture")
			}
		}
	}
	known("Allow", s.Allow)
	known("Deny", s.Deny)
	if slices.Contains(s.Deny, "exit_group") || s.Syscalls == "" && len(s.Allow) > 0 && !s.allows("exit_group") {
		bad("Syscalls", "exit_group", "is denied: no process could end by itself")
	}
	if program && s.Syscalls != "compute" && s.Seal() != "" {
		bad("Deny", "execve", "is what starts this program: list in Execute what it may execute")
	}
}

// String returns the walls in one line.
func (s *Rules) String() string {
	if s.IsZero() {
		return ""
	}
	words := []string{"no-new-privileges"}
	add := func(is bool, name string, lists ...string) {
		if !is {
			return
		}
		lists = slices.DeleteFunc(lists, func(l string) bool { return strings.HasSuffix(l, "[]") })
		if len(lists) == 0 {
			lists = []string{"none"}
		}
		words = append(words, name+"("+strings.Join(lists, " ")+")")
	}
	add(s.files(), "files", fmt.Sprint("read=", s.Read), fmt.Sprint("write=", s.Write), fmt.Sprint("execute=", s.Execute))
	add(s.tcp(), "tcp", fmt.Sprint("connect=", s.Connect), fmt.Sprint("bind=", s.Bind))
	add(s.NoNetwork, "network")
	add(s.caps(), "capabilities", fmt.Sprint(s.Capabilities))
	profile := s.Syscalls
	if profile == "" {
		profile = "own"
	}
	deny := "deny"
	if s.DenyWithError {
		deny = "deny-with-error"
	}
	add(s.filters(), "syscalls", profile, fmt.Sprint("allow=", s.Allow), fmt.Sprint(deny+"=", s.Deny))
	if s.Scoped {
		words = append(words, "scoped")
	}
	if s.BestEffort {
		words = append(words, "best-effort")
	}
	return strings.Join(words, " ")
}

// capabilities are their names by number.
var capabilities = strings.Fields(`chown dac_override dac_read_search fowner fsetid kill setgid setuid
	setpcap linux_immutable net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner
	sys_module sys_rawio sys_chroot sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource
	sys_time sys_tty_config mknod lease audit_write audit_control setfcap mac_override mac_admin
	syslog wake_alarm block_suspend audit_read perfmon bpf checkpoint_restore`)
