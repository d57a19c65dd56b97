package handover

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/supervisor"
)

// Format is the format of this release. Reads is the oldest format whose reader may read it, but
// for a state with a child that waits for its restart: a reader of format 1 would leave it down.
const (
	Format = 2
	Reads  = 1
)

// ErrFormat is wrapped by the error of Decode for a state that this release must not read.
var ErrFormat = errors.New("the state has a format that this program does not read")

// A Master is the state of a master.
type Master struct {
	Format, Reads int

	Program, Dir string // by which the program was started, and in which; "" = not known

	Tree  []string  // what the program declares, as package declaration writes it
	Began time.Time // when the tree was started

	// Why the image before the writer was replaced by the writer again: its successor failed.
	// "" = it was not.
	Back string

	Self        ProgramFile // that of the writer, to go back to
	Generations Generations
	Sizes       map[string]int // of pools that were scaled, by path
	Idle        []string       // paths of children that do not run, and whose start is ignored in the trial
	LastID      int            // the newest ID of a child
	LastLink    uint64         // the number of the newest link
	Events      uint64         // the cursor of the newest event

	Books map[string]supervisor.Book // of the supervisors, by path from the root's name on
	Pools map[string][]pool.SlotBook // of the slots of pools, by path

	Workers  []FormerWorker
	Programs []OtherProgram

	Sockets, Actors Part

	Upgrade telemetry.Upgrade // that leaves the state
	Again   bool              // another upgrade waits for the end of this one
	Funcs   []FuncState
	Crashes []byte // the crash reports that are kept, by EncodePart

	Host string `cbor:",omitempty"` // of the tree in its cluster; "" = there is none
	Boot string `cbor:",omitempty"`

	Cgroup string `cbor:",omitempty"` // in which the groups of processes are; "" = none
}

// A FuncState is what a Func has handed over.
type FuncState struct {
	Path    string
	Version int
	State   []byte
}

// A Part is the state of one part of the master, as that part encodes it. Files are indexes of the
// descriptors that go with the state.
type Part struct {
	State []byte
	Files []int
}

// A ProgramFile is a program file, and perhaps the directory in which it is started.
type ProgramFile struct {
	State process.ExecutableState
	Files []int
}

// Generations are the generations of a tree that does not reload.
type Generations struct {
	Last, Current int
	ProgramFile
	Config  []byte
	Environ []string
}

// A FormerWorker is a worker that is ready, or a spare that waits for its slot, or the listener
// process.
type FormerWorker struct {
	Pool    string // its path; of the listener process the name of its supervisor
	Hello   childproto.Hello
	Began   time.Time // when it was launched, or assigned
	Link    uint64    // the number of its link to the listener process
	Channel Part
	Process RunningProcess
}

// An OtherProgram is a running program other than this one.
type OtherProgram struct {
	Path        string
	Incarnation int
	Process     RunningProcess
}

// A RunningProcess is a process and its output. Files are the pidfd, and the ends of the pipes of
// standard output and standard error that have not ended.
type RunningProcess struct {
	State          process.ChildState
	Stdout, Stderr process.LinesState
	OutPiece       int       // the number of the piece of a line that was read last
	ErrPiece       int       // the same, of standard error
	Began          time.Time // when it was started
	Sent           uint64    // the signals that the master has sent it
	Files          []int

	Cgroup string `cbor:",omitempty"` // the directory of its group; "" = none
}

// Descriptors returns how many Files there must be.
func (p RunningProcess) Descriptors() int {
	n := 1
	for _, s := range []process.LinesState{p.Stdout, p.Stderr} {
		if !s.Ended {
			n++
		}
	}
	return n
}

// encoding keeps the nanoseconds of a moment.
var encoding = func() cbor.EncMode {
	m, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		panic(err) // the options are ours
	}
	return m
}()

// decoding refuses what no writer writes. Its bounds are far above what a tree can have.
var decoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsAllowed,
		MaxArrayElements: 1 << 16, MaxMapPairs: 1 << 16, MaxNestedLevels: 16,
	}.DecMode()
	if err != nil {
		panic(err) // the options are ours
	}
	return m
}()

// EncodePart returns a part of the state that this package does not know.
func EncodePart(v any) ([]byte, error) { return encoding.Marshal(v) }

// DecodePart reads what EncodePart has written, perhaps of another release, into v.
func DecodePart(b []byte, v any) error { return decoding.Unmarshal(b, v) }

// Encode returns the state as bytes, in this release's format.
func (s Master) Encode() ([]byte, error) {
	s.Format, s.Reads = Format, Reads
	for _, b := range s.Books {
		if slices.ContainsFunc(b.Children, func(c supervisor.ChildBook) bool { return c.Status == supervisor.Restarting }) {
			s.Reads = Format
		}
	}
	b, err := encoding.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("coppice: encode the state of the master: %w", err)
	}
	return b, nil
}

// Decode returns the state that Encode has encoded, perhaps of another release. files is the number
// of descriptors that came with it.
func Decode(b []byte, files int) (Master, error) {
	var head struct{ Format, Reads int }
	if err := decoding.Unmarshal(b, &head); err != nil {
		return Master{}, fmt.Errorf("coppice: the state of the master: %w", err)
	}
	if head.Format < 1 || head.Reads < 1 || head.Reads > Format {
		return Master{}, fmt.Errorf("coppice: %w: it has format %d, for readers of %d and later; this program reads %d", ErrFormat, head.Format, head.Reads, Format)
	}
	var s Master
	if err := decoding.Unmarshal(b, &s); err != nil {
		return Master{}, fmt.Errorf("coppice: the state of the master: %w", err)
	}
	return s, s.check(files)
}

// check reports a descriptor that did not come, or that two parts have.
func (s Master) check(files int) (err error) {
	owners := make(map[int]string)
	part := func(name string, of []int) {
		for _, f := range of {
			switch other, taken := owners[f]; {
			case err != nil: // the first is enough
			case f < 0 || f >= files:
				err = fmt.Errorf("coppice: the state of the master: %s has descriptor %d of %d", name, f, files)
			case taken:
				err = fmt.Errorf("coppice: the state of the master: %s and %s have descriptor %d", other, name, f)
			}
			owners[f] = name
		}
	}
	part("the executable", s.Generations.Files)
	part("the program of the master", s.Self.Files)
	part("the socket table", s.Sockets.Files)
	part("the actors", s.Actors.Files)
	for _, w := range s.Workers {
		part("the channel of "+w.Hello.Name, w.Channel.Files)
		part("the process of "+w.Hello.Name, w.Process.Files)
	}
	for _, p := range s.Programs {
		part("the process of "+p.Path, p.Process.Files)
	}
	return err
}
