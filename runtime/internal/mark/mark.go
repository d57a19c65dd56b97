// Package mark takes the mark of an exec out of the environment: the variable by which a program
// that replaces itself in place (execve(2)) tells the next image of it which descriptors that has
// got. It does so before any other package can start a process that would inherit the variable or
// the descriptors.
//
// It imports nothing but syscall and runtime, so that its init runs as early as Go allows: packages
// are initialized in the order of their dependencies.
package mark

// Var is the variable that has the mark. The process unsets it.
const Var = "COPPICE_IMAGE"

// Trial is the value of Var for a program that is only asked whether it could go on after an exec.
// It holds the main thread in the same way.
const Trial = "trial"

// A Mark is what an image tells the next one, besides its state.
type Mark struct {
	PID     int64   // of the process: a mark of another process means nothing
	State   int64   // the descriptor of the state
	At      int64   // when the exec began, in nanoseconds of CLOCK_MONOTONIC
	Ignored int64   // bit n-1: signal n was ignored when the program was first started
	Files   []int64 // further descriptors
	Bad     string  // what is wrong with the mark; "" if all is well
}

// Got is the mark that this image got; nil if no image was before it in this process.
var Got *Mark

// String returns m as the value of Var: keys with numbers, as "pid=7 state=4 files=5,9". A key that
// a reader does not know is ignored, and one that is missing is 0.
func (m Mark) String() string {
	b := number([]byte("pid="), m.PID)
	b = number(append(b, " state="...), m.State)
	b = number(append(b, " at="...), m.At)
	b = number(append(b, " ignored="...), m.Ignored)
	for i, fd := range m.Files {
		if i == 0 {
			b = append(b, " files="...)
		} else {
			b = append(b, ',')
		}
		b = number(b, fd)
	}
	return string(b)
}

// number appends n, which is not negative, in decimal.
func number(b []byte, n int64) []byte {
	if n >= 10 {
		b = number(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

// parse reads the value of Var.
func parse(v string) (m Mark) {
	for v != "" {
		var field, item string
		field, v = cut(v, ' ')
		key, list := cut(field, '=')
		into := map[string]*int64{"pid": &m.PID, "state": &m.State, "at": &m.At, "ignored": &m.Ignored}[key]
		for list != "" && (into != nil || key == "files") {
			item, list = cut(list, ',')
			n, ok := digits(item)
			switch {
			case !ok:
				m.Bad = field + ": no number"
				return m
			case into != nil:
				*into = n
			default:
				m.Files = append(m.Files, n)
			}
		}
	}
	return m
}

func digits(s string) (n int64, ok bool) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' || n > (1<<63-10)/10 {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, s != ""
}

func cut(s string, sep byte) (before, after string) {
	for i := range len(s) {
		if s[i] == sep {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
