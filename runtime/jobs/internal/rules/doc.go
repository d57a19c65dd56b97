// Package rules decides what becomes of each call of a pool of jobs: which waits, which worker runs
// which, what the caller gets, which runs again and which worker is killed. It is a pure state
// machine: time comes with the event, and there is no goroutine, lock, payload or process.
//
// A call is in one of these states; each event that moves it out of one stands behind it.
//
//	waiting   in the queue of its tenant      → a worker has room, cancelled
//	alone     a probe, until a worker is empty → that is so, cancelled
//	running   handed to a worker              → answer, death of the worker, not delivered
//	later     its worker died; runs again     → the back-off is over, cancelled
//
// A call that was handed to a worker may have begun, whatever the worker has done by its death.
package rules
