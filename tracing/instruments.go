package tracing

// The instruments. OpenTelemetry's conventions have none for these values. Names and units
// follow its rules: no _total; seconds and bytes; {things} for the rest.
var (
	HandoffDuration = &Instrument{"coppice.handoff.duration", "s", Duration, "From accept to the claim of a worker."}
	QueueDuration   = &Instrument{"coppice.handoff.queue.duration", "s", Duration, "How long a connection waited for a worker before an offer that was claimed."}
	HandoffCount    = &Instrument{"coppice.handoff.offers", "{offer}", Sum, "Offers settled, by outcome and, where not claimed, by reason."}
	PoolWorkers     = &Instrument{"coppice.pool.workers", "{worker}", Level, "Workers of a pool, by state."}
	PoolSize        = &Instrument{"coppice.pool.size", "{worker}", Level, "Slots of a pool."}
	Restarts        = &Instrument{"coppice.child.restarts", "{restart}", Sum, "Restarts decided, by supervisor and by why the child had ended."}
	Exits           = &Instrument{"coppice.child.exits", "{exit}", Sum, "Ends of children, by supervisor and reason."}
	Hangs           = &Instrument{"coppice.child.hangs", "{hang}", Sum, "Workers that were ended because they hung."}
	Reloads         = &Instrument{"coppice.reloads", "{reload}", Sum, "Reloads that have ended; those that failed by the type of their error."}
	Generation      = &Instrument{"coppice.generation", "{generation}", Level, "Number of the generation that the tree runs."}
	ConnectionsOpen = &Instrument{"coppice.connection.open", "{connection}", Level, "Connections that workers have claimed and not closed."}
	ConnectionsCut  = &Instrument{"coppice.connection.forced", "{connection}", Sum, "Connections that were cut at the deadline of a drain."}
	TurnedAway      = &Instrument{"coppice.connection.turned_away", "{connection}", Sum, "Connections that were refused at a limit of their listener."}
	Parked          = &Instrument{"coppice.connection.parked", "{connection}", Level, "Connections that wait in the listener process for their client's next request."}
	GivenBack       = &Instrument{"coppice.connection.given_back", "{connection}", Sum, "Connections that workers gave back between two requests, to be parked."}
	ParkingEnds     = &Instrument{"coppice.connection.parking.ends", "{connection}", Sum, "Connections that are not parked any more, by what became of them."}
	ProcessMemory   = &Instrument{"coppice.process.memory.usage", "By", Level, "Memory of a process of the tree: anonymous, swapped and shared, without the pages of files."}
	ProcessCPU      = &Instrument{"coppice.process.cpu.time", "s", Seconds, "CPU time of a process of the tree and of those that had its place before."}
	ProcessFiles    = &Instrument{"coppice.process.unix.file_descriptor.count", "{file_descriptor}", Level, "Open descriptors of a process of the tree."}
	JobsWaiting     = &Instrument{"coppice.job.waiting", "{call}", Level, "Calls that wait for a worker of a pool of jobs, or to run again."}
	JobsOldest      = &Instrument{"coppice.job.oldest", "s", LevelSeconds, "How long the oldest of the calls that wait for a worker has done so."}
	JobsRunning     = &Instrument{"coppice.job.running", "{call}", Level, "Calls that workers run."}
	JobCalls        = &Instrument{"coppice.job.calls", "{call}", Sum, "Calls that have ended, by how."}
	JobRuns         = &Instrument{"coppice.job.run.duration", "s", LongDuration, "From the hand-over of a call to a worker to its answer, or the worker's death."}
	JobWaits        = &Instrument{"coppice.job.queue.duration", "s", LongDuration, "How long a call waited before it was handed over for the first time."}
	JobRetries      = &Instrument{"coppice.job.retries", "{run}", Sum, "Runs after the first, of calls whose worker died."}
	JobDeaths       = &Instrument{"coppice.job.deaths", "{death}", Sum, "Workers that died with a call, by how they ended."}
	JobsQuarantined = &Instrument{"coppice.job.quarantined", "{key}", Level, "Keys whose calls are refused."}
	MailboxDepth    = &Instrument{"coppice.actor.mailbox.depth", "{message}", Level, "Messages that wait in mailboxes."}
	TransportBytes  = &Instrument{"coppice.transport.io", "By", Sum, "Bytes between the processes of the tree."}
	TransportFrames = &Instrument{"coppice.transport.frames", "{frame}", Sum, "Frames between the processes of the tree."}
	TransportFDs    = &Instrument{"coppice.transport.descriptors", "{descriptor}", Sum, "Descriptors sent between the processes of the tree, by outcome."}
	SpansDropped    = &Instrument{"coppice.telemetry.spans.dropped", "{span}", Sum, "Sampled spans that were dropped."}
	PayloadsDropped = &Instrument{"coppice.telemetry.payloads.dropped", "{payload}", Sum, "Payloads of spans, each of up to 256 spans or 256 KiB, that the collector did not get."}
	MetricsDropped  = &Instrument{"coppice.telemetry.metrics.dropped", "{request}", Sum, "Requests of metrics that the collector did not take; the next one has all again."}
	SpansRecovered  = &Instrument{"coppice.telemetry.spans.recovered", "{span}", Sum, "Spans of processes that had ended, taken from their tables."}
	TableFull       = &Instrument{"coppice.telemetry.table.full", "{span}", Sum, "Spans that would not have survived a kill, for want of room."}
)

// The instruments of the trunks to other hosts, by the host.
var (
	TrunksUp      = &Instrument{"coppice.trunk.up", "{trunk}", Level, "Trunks that there are: one to a host that is reached."}
	TrunksLost    = &Instrument{"coppice.trunk.lost", "{trunk}", Sum, "Trunks that have ended."}
	TrunksRefused = &Instrument{"coppice.trunk.refused", "{connection}", Sum, "Connections that did not become a trunk for a reason that a human must see to; of strangers without a name."}
	TrunkLanes    = &Instrument{"coppice.trunk.lanes", "{lane}", Level, "Open lanes between processes of the two hosts."}
	TrunkHeld     = &Instrument{"coppice.trunk.held", "By", Level, "Payload from the other host that waits for processes of this one."}
	TrunkBytes    = &Instrument{"coppice.trunk.io", "By", Sum, "Bytes between the hosts, before TLS."}
	TrunkFrames   = &Instrument{"coppice.trunk.frames", "{frame}", Sum, "Frames of lanes between the hosts."}
)

// The instruments of the cgroups of processes, those that had the place before included.
var (
	CgroupMemory       = &Instrument{"coppice.cgroup.memory.usage", "By", Level, "Memory of the cgroup of a process, page cache included."}
	CgroupMemoryPeak   = &Instrument{"coppice.cgroup.memory.peak", "By", Level, "Most memory that the cgroup has had."}
	CgroupMemoryLimit  = &Instrument{"coppice.cgroup.memory.limit", "By", Level, "Memory that the cgroup may have."}
	CgroupMemoryEvents = &Instrument{"coppice.cgroup.memory.events", "{event}", Sum, "How often a cgroup met a limit of its memory, by event."}
	CgroupCPU          = &Instrument{"coppice.cgroup.cpu.time", "s", Seconds, "CPU time of the cgroup of a process."}
	CgroupThrottled    = &Instrument{"coppice.cgroup.cpu.throttled.time", "s", Seconds, "How long the quota of CPU time held up a cgroup."}
	CgroupTasks        = &Instrument{"coppice.cgroup.task.count", "{task}", Level, "Threads in the cgroup of a process."}
	CgroupPressure     = &Instrument{"coppice.cgroup.pressure.time", "s", Seconds, "How long processes of a cgroup had to wait for a resource."}
)

// Instruments has every instrument above.
var Instruments = []*Instrument{
	HandoffDuration, QueueDuration, HandoffCount, PoolWorkers, PoolSize, Restarts, Exits, Hangs, Reloads, Generation,
	ConnectionsOpen, ConnectionsCut, TurnedAway, Parked, GivenBack, ParkingEnds, ProcessMemory, ProcessCPU, ProcessFiles, MailboxDepth,
	CgroupMemory, CgroupMemoryPeak, CgroupMemoryLimit, CgroupMemoryEvents, CgroupCPU, CgroupThrottled, CgroupTasks, CgroupPressure,
	TrunksUp, TrunksLost, TrunksRefused, TrunkLanes, TrunkHeld, TrunkBytes, TrunkFrames,
	JobsWaiting, JobsOldest, JobsRunning, JobCalls, JobRuns, JobWaits, JobRetries, JobDeaths, JobsQuarantined,
	TransportBytes, TransportFrames, TransportFDs, SpansDropped, PayloadsDropped, MetricsDropped, SpansRecovered, TableFull,
}
