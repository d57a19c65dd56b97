// Package seal denies a worker to replace its program (execve(2)). The filter that a process is
// started with must let it execute its own program, so the worker adds this one itself.
//
// It imports nothing but syscall and runtime, so that its init runs as early as Go allows: packages
// are initialized in the order of their dependencies. Before it run Go's runtime, constructors of
// C, and the init of packages that need as little: no byte from outside has reached the process by
// then but its arguments, variables and files, which are the master's. All else that the worker may
// not do is denied before its first instruction.
package seal

// Var is the variable that asks for it; the process unsets it. Its value is Fail, or else a denied
// call ends the process. If the filter cannot be had, the process ends, unless Best follows.
const (
	Var  = "COPPICE_SEAL"
	Fail = "EPERM"
	Best = "?"
)
