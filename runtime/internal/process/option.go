package process

// An OptionError names the option of a [Command] that the system does not honour.
type OptionError struct {
	Option string // the field's name and its value
	Err    error
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns the system's error.
func (e *OptionError) Unwrap() error { return e.Err }
