package fdipc_test

import (
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
)

type syscallRawConn = syscall.RawConn

// nobody is the user that has no privileges.
var nobody = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}

const raceEnabled = fdipc.RaceEnabled
