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
	for v != "" && m.Bad == "" {
		var field, key, value string
		field, v = cut(v, ' ')
		key, value = cut(field, '=')
		var n int64
		switch key {
		case "pid":
			m.PID, value = digits(value)
		case "state":
			m.State, value = digits(value)
		case "at":
			m.At, value = digits(value)
		case "ignored":
			m.Ignored, value = digits(value)
		case "files":
			for value != "" {
				n, value = digits(value)
				m.Files = append(m.Files, n)
				if value != "" && (value[0] != ',' || value == ",") {
					break
				}
				_, value = cut(value, ',')
			}
		default:
			value = ""
		}
		if value != "" {
			m.Bad = field + ": no number"
		}
	}
	return m
}

// digits reads the number that s begins with, and returns what follows it: all of s if there is no
// number.
func digits(s string) (n int64, rest string) {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return n, s[i:]
		}
		if n > (1<<63-10)/10 {
			return 0, s
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, ""
}

func cut(s string, sep byte) (before, after string) {
	for i := range len(s) {
		if s[i] == sep {
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}
