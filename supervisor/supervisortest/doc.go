// Package supervisortest tests supervision trees without their children and
// without waiting.
//
// # Scripts
//
// A [Stage] plays a script on a tree: the supervisors decide by the rules of
// package supervisor, the very code that runs in production; the children are
// fakes that start, fail and end as the script says, and the clock moves only
// for the script. [Golden] compares the outcome with a file:
//
//	func TestTree(t *testing.T) {
//		supervisortest.Golden(t, app.Tree(), "testdata/database_dies.txt")
//	}
//
// where the file holds commands, each followed by what it led to (run the test
// once with -rewrite to have that filled in, and read it):
//
//	# The database dies: what depends on it is restarted, the rest is not touched.
//	start -> ok
//	    start db#1
//	    start web#1
//	  up: db#1 web#1
//	crash db -> ok
//	    stop db#1 crash
//	    stop web#1 shutdown
//	    start db#2
//	    start web#2
//	    ! child_terminated db crash
//	  up: db#2 web#2
//
// Lines with four blanks are starts and stops in order, those with ! what OTP
// reports at error level; the last line of a step is the state: a#3 is the
// third incarnation of a, "a-" a spec with nothing running, "a~" a child
// about to be restarted, "s#1[...]" a supervisor.
//
// The commands, P being a path such as web or media/encoder:
//
//	start; stop [REASON]; supkill                start the tree; the parent's order to stop; kill the root
//	crash P; exit P REASON; kill P               end a child; REASON is normal, shutdown, shutdown:x, or another word
//	terminate P; restart P; delete P; get P      the calls on a supervisor
//	start_child P RESTART SHUTDOWN TYPE          add a child: start_child cache transient 5000 worker
//	spawn LABEL                                  add a child to a dynamic root
//	burst X ; Y                                  two children end before the supervisor looks at either
//	race crash P => OP                           OP arrives while a restart of P fails
//	advance MS; which; count; stray
//	plan P OUTCOME...                            the next starts of P: ok, extra, error, raise, badreturn, ignore
//	onstop P ignore|REASON                       what P does when asked to stop
//
// Package supervisor itself is held to recordings of Erlang/OTP in this
// language; [NewScript] plays those, which declare their tree themselves.
//
// # Fakes for a running supervisor
//
// To test code that talks to a real [supervisor.Supervisor], give it children
// made by [NewChild] and a [Clock].
package supervisortest
