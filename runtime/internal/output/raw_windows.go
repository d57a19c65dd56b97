package output

import "os"

// WriteRaw writes b to f. On Windows no signal ends the program when the reader has gone.
func WriteRaw(f *os.File, b []byte) error {
	_, err := f.Write(b)
	return err
}
