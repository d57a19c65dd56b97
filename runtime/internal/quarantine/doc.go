// Package quarantine finds the inputs that kill workers, and says which calls to refuse for it. An
// input is known by its key: the name of a file, a hash, a route. It is a pure state machine: time
// is an argument, and there is no goroutine, lock or process. Its caller asks before each call and
// tells how the call ended.
//
// # The rule
//
// The keys in flight in a worker that died of itself are the suspects of that death. An answer
// clears its key of all deaths before: what kills each time is never answered. A key suspected of
// [Config.Deaths] deaths is quarantined if it explains them better than each suspect beside it; a
// death counts for its suspects in equal parts. The deaths that it explains no longer count against
// what was beside it. So a key that was alone in its workers is quarantined by Config.Deaths
// deaths, and of several in flight the one that was there each time.
//
// If two keys explain their deaths equally well, neither is quarantined. One call at a time of each
// then runs alone in a worker: the answer of the innocent, or the death of the other, decides.
//
// # How an innocent key can be quarantined
//
// Only if it was in flight in Config.Deaths deaths with another cause, without an answer of that
// key between them. If a call is killed by another cause with the chance q, each on its own, at
// most n·q^Deaths of n calls of innocent keys are expected to end in a quarantine. With one call at
// a time in a worker q counts deaths without a guilty call, as by a leak; with more, those beside a
// guilty one as well. The first probe clears it.
//
// # What is not found
//
// What kills after its answer: by a leak, or memory that it corrupts. What is answered more often
// than it kills. What a death with more than [MaxSuspects] keys in flight hides.
package quarantine
