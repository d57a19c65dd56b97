//go:build linux && (386 || arm)

package process

import "golang.org/x/sys/unix"

// The calls that set user and groups, of 32 bits each.
const sysSetgroups, sysSetgid, sysSetuid = unix.SYS_SETGROUPS32, unix.SYS_SETGID32, unix.SYS_SETUID32
