// Package rules is the decision core of package supervisor: the rules of
// Erlang/OTP's supervisor as one function on plain data.
//
// [State.Step] takes the time and one event and returns the effects that must be carried out. It
// starts no goroutine, reads no clock, opens nothing, logs nothing and rolls no dice: time and
// randomness come in with the event. The state has only exported fields of plain types, so it can
// be encoded, compared and decoded at any point between two steps.
//
// # What the driver owes
//
//   - Effects are carried out in the order given.
//   - Every [Start] is answered by exactly one of [Started], [StartFailed] or [Ignored], and every
//     instance that was [Started] by exactly one [Exited] after it. Answers carry the Run of the
//     effect they answer; an answer with an old Run is dropped (a late Started is killed).
//   - A [SetTimer] replaces the child's former timer; when its time has come
//     a [Timer] event follows, after the events that were already waiting.
//   - After [Terminated] no event has any effect.
//
// # Cost
//
// A step costs O(log n) in the number of children, amortised over the steps, but for the one step
// that stops all children at once (Dynamic, StopTogether), which returns n effects.
package rules
