package netactor

// socketSpec says which socket to open.
type socketSpec struct {
	Request             // resolved and valid
	control ControlFunc // the user's, called before the socket is bound; nil without
	joins   bool        // it is a further socket of a ReusePort group
}
