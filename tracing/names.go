package tracing

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// This file has every name that Coppice puts into a trace, with its source and its stability, so
// that a rename is one change. Names from OpenTelemetry's semantic conventions are of version
// 1.43.0. Coppice uses the stable ones (messaging.* is not stable, so hand-offs do not have it) and
// the process attributes, which are release candidates. Its other names begin with "coppice.".

// ScopeName is the instrumentation scope of Coppice's own spans.
const ScopeName = "github.com/coppice-go/coppice"

// SchemaURL names the version of the semantic conventions that the attributes follow.
const SchemaURL = semconv.SchemaURL

// Span names. All are verbs of low cardinality, without a pid, a descriptor or an address.
// All are Coppice's.
const (
	SpanAccept  = "accept"   // INTERNAL, a root: one accepted connection, until its hand-off is settled
	SpanQueue   = "queue"    // INTERNAL, under accept: waits for a worker with credit
	SpanHandoff = "hand-off" // PRODUCER, under accept: offered until claimed, refused, returned or lost
	SpanClaim   = "claim"    // CONSUMER, under hand-off: received until the application takes it
	SpanServe   = "serve"    // INTERNAL, under claim: until the connection is closed
)

// Span names of the life of processes. All are the master's, INTERNAL, and roots
// but for what a restart, a reload, a change of size or an upgrade consists of.
const (
	SpanStart   = "start"   // from the decision until the child is ready
	SpanStop    = "stop"    // from the request until the child has ended
	SpanExit    = "exit"    // of no length: an end of the child's own that no restart follows
	SpanRestart = "restart" // from the end of the child until its replacement is ready, or fails
	SpanGiveUp  = "give up" // a supervisor is over its limit: until it has stopped its children
	SpanReload  = "reload"  // a whole reload
	SpanScale   = "scale"   // a change of a pool's size
	SpanCanary  = "canary"  // a new generation of a pool is judged, in a reload or after it
	SpanUpgrade = "upgrade" // a whole upgrade, from the check by the old program to the end of the reload by the new one

	// The steps of an upgrade, under upgrade or, of an upgrade that goes back, under roll back.
	SpanCheck    = "check"     // the new program says whether it can take over
	SpanWait     = "wait"      // until nothing is under way
	SpanSuspend  = "suspend"   // Funcs are stopped, and the master
	SpanExec     = "exec"      // until the new program runs
	SpanTrial    = "trial"     // until it has the children
	SpanRoll     = "roll"      // until they are what it declares; has the reload
	SpanRollBack = "roll back" // of an upgrade that failed: until the old program has its children back
)

// SpanHandle is the span of a message that an actor handles, if it was asked for:
// CONSUMER, under the span with which the message was sent.
const SpanHandle = "handle"

// Span names of a call of package jobs.
const (
	SpanCall   = "call"   // PRODUCER: the whole call, at the caller
	SpanQueued = "queued" // INTERNAL, under call, the master's: in the pool's queue
	SpanRun    = "run"    // CONSUMER, under call: one run, in a worker
)

// Names of span events. All are ours.
const (
	EventExit  = "exit"  // on restart: the child ended; on queued and call: the worker that had the call
	EventReady = "ready" // on start and restart
	EventKill  = "kill"  // on stop: it was killed, without being asked or after its time was over

	EventQuarantined = "quarantined" // on queued: the call is not run, for its key is quarantined
)

// Attributes of spans.
const (
	KeyNetworkTransport = semconv.NetworkTransportKey   // stable: "tcp" or "unix" on accept, "unix" on hand-off
	KeyPeerAddress      = semconv.NetworkPeerAddressKey // stable: the client's address, on accept
	KeyPeerPort         = semconv.NetworkPeerPortKey    // stable: the client's port, on accept
	KeyErrorType        = semconv.ErrorTypeKey          // stable: set on every span that failed; the outcome, or the Go type of an error

	KeyListener       = attribute.Key("coppice.listener.name")       // ours: on accept
	KeyParkingOutcome = attribute.Key("coppice.parking.outcome")     // ours: on metrics
	KeyCgroupEvent    = attribute.Key("coppice.cgroup.event")        // ours: on metrics: of memory.events
	KeyCgroupResource = attribute.Key("coppice.cgroup.resource")     // ours: on metrics: what is waited for
	KeyCgroupStall    = attribute.Key("coppice.cgroup.stall")        // ours: on metrics: some or all wait
	KeyPool           = attribute.Key("coppice.pool.name")           // ours: on queue, hand-off, claim, call; on metrics
	KeyFunction       = attribute.Key("coppice.job.function")        // ours: on call and run
	KeyRun            = attribute.Key("coppice.job.run")             // ours: on queued and run: of the call, from 1
	KeyJobKey         = attribute.Key("coppice.job.key")             // ours: on the event quarantined
	KeyJobOutcome     = attribute.Key("coppice.job.outcome")         // ours: on metrics: how a call ended
	KeyHandleKind     = attribute.Key("coppice.handle.kind")         // ours: conn, listener, packet, file
	KeyHandoffTarget  = attribute.Key("coppice.handoff.target")      // ours: the receiving process, as "web/0"
	KeyHandoffOutcome = attribute.Key("coppice.handoff.outcome")     // ours: an Outcome
	KeyHandoffReason  = attribute.Key("coppice.handoff.reason")      // ours: why the outcome was not "claimed"
	KeyRecovered      = attribute.Key("coppice.span.recovered")      // ours: true on a span that its own process did not send
	KeyIncarnation    = attribute.Key("coppice.process.incarnation") // ours: on hand-off, of the receiver; in the resource, of the process
)

// KeyMessageType is of a message that an actor handles; with KeyActorPath.
const KeyMessageType = attribute.Key("coppice.message.type") // ours: the Go type

// Attributes of the spans of processes' lives.
const (
	KeyChildPath      = attribute.Key("coppice.child.path")           // ours: web/0, or that of a supervisor
	KeyExitReason     = attribute.Key("coppice.exit.reason")          // ours: one line, as the supervisor has it
	KeyRestartAttempt = attribute.Key("coppice.restart.attempt")      // ours: consecutive failures of this child
	KeyRestartDelay   = attribute.Key("coppice.restart.delay")        // ours: seconds before the attempt
	KeyRestartLeft    = attribute.Key("coppice.restart.budget.left")  // ours: restarts left in the window
	KeyRestartMax     = attribute.Key("coppice.restart.budget.limit") // ours: restarts allowed in a window
	KeyRestartCause   = attribute.Key("coppice.restart.cause")        // ours: the child whose end led to this one's restart
	KeyPoolWhy        = attribute.Key("coppice.pool.why")             // ours: reload, roll back, recycle, refill, spare, scale, cap
	KeyScaleFrom      = attribute.Key("coppice.scale.from")           // ours: workers before
	KeyScaleTo        = attribute.Key("coppice.scale.to")             // ours: workers asked for
	KeyReloadFrom     = attribute.Key("coppice.reload.from")          // ours: generation before
	KeyReloadTo       = attribute.Key("coppice.reload.to")            // ours: generation after
	KeyCanaryVerdict  = attribute.Key("coppice.canary.verdict")       // ours: on canary: forward, back or held, with both generations in numbers
	KeyCanaryCrashes  = attribute.Key("coppice.canary.crashes")       // ours: on canary, of the new generation and the old one
	KeyCanaryRequests = attribute.Key("coppice.canary.requests")      // ours: likewise
	KeyCanaryFailed   = attribute.Key("coppice.canary.failed")        // ours: likewise: the share of requests that failed
	KeyCanaryP99      = attribute.Key("coppice.canary.p99")           // ours: likewise: seconds
	KeyCanaryMemory   = attribute.Key("coppice.canary.memory")        // ours: likewise: bytes by which a worker has grown
)

// Attributes of metrics only.
const (
	KeyState     = attribute.Key("coppice.child.state") // ours: a supervisor.Status, in lower case
	KeyReason    = attribute.Key("coppice.exit.kind")   // ours: a kind of exit reason: killed, signaled, error
	KeyPeerHost  = attribute.Key("coppice.peer.host")   // ours: the other host of a trunk
	KeyDirection = semconv.NetworkIODirectionKey        // release candidate: transmit or receive
)

// Attributes of a process, in the resource.
const (
	KeyServiceName       = semconv.ServiceNameKey                      // stable: the program's, the same for all its processes
	KeyServiceInstanceID = semconv.ServiceInstanceIDKey                // stable: the process's path and incarnation, as "web/0#3"
	KeyProcessPID        = semconv.ProcessPIDKey                       // release candidate
	KeyActorPath         = attribute.Key("coppice.actor.path")         // ours: master, listener/http, web/0
	KeyProcessID         = attribute.Key("coppice.process.id")         // ours: the process's ID, never reused
	KeyRole              = attribute.Key("coppice.process.role")       // ours: master, listener, worker
	KeySlot              = attribute.Key("coppice.process.slot")       // ours: a worker's place in its pool
	KeyGeneration        = attribute.Key("coppice.process.generation") // ours: the reload that a worker belongs to
)

// HandoffOutcome is how a hand-off ended. The words are those of the transport.
type HandoffOutcome string

// The outcomes of a hand-off. All but Claimed are errors of the span, and its error.type.
const (
	Claimed  HandoffOutcome = "claimed"  // the receiver's application took it
	Refused  HandoffOutcome = "refused"  // the receiver said no; the sender owns it again
	Returned HandoffOutcome = "returned" // the receiver died or was revoked; the sender owns it again
)
