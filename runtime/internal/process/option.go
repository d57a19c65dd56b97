package process

// An OptionError says which part of a [Command] the system does not honour.
type OptionError struct {
	Option string // the field's name and its value
	Err    error
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns what the system said.
func (e *OptionError) Unwrap() error { return e.Err }
