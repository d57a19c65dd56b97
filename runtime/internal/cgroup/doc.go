// Package cgroup makes control groups for the processes of a tree: cgroups of version 2, as
// cgroups(7) and the kernel's Documentation/admin-guide/cgroup-v2.rst describe them.
//
// All of them are below the cgroup in which this program was started, its own:
//
//	own                     cgroup.subtree_control: the controllers that are needed
//	own/coppice-4711        likewise; of this program
//	own/coppice-4711/coppice-master    this program, and its processes without a group
//	own/coppice-4711/web-0#3           a group
//
// A cgroup that hands controllers down may have no processes itself, but for the root ("no internal
// processes"). So the first [Make] moves this program into the leaf coppice-master, in any case,
// because that leaf also says whose the groups beside it are: they are left over when no process is
// in it. The move is safe: all limits of own and above it go on to hold, and what the program has
// allocated stays charged to own. An exec leaves a process in its cgroup, so the next image of this
// program goes on there ([TakeOver]).
//
// Any goroutine may call the functions of this package. They only read and write files of the
// kernel's, and wait for no process, but for [Cgroup.Remove].
package cgroup
