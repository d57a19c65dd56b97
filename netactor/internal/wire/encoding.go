package wire

import (
	"encoding/json"
	"fmt"

	"github.com/coppice-go/coppice/netactor"
)

// Encode returns v as a payload. v is of a type of this module, so encoding cannot fail.
func Encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("netactor: encode: " + err.Error())
	}
	return b
}

// Decode reads a payload from another process into v.
func Decode(b []byte, v any) error {
	if len(b) > MaxControl {
		return fmt.Errorf("netactor: control payload of %d bytes is longer than %d", len(b), MaxControl)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("netactor: control payload: %w", err)
	}
	return nil
}

// DecodeStats reads the counts from the listener process. They may be longer than other control
// payloads: they grow with listeners and workers.
func DecodeStats(b []byte, out *[]netactor.ListenerStats) error {
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("netactor: stats: %w", err)
	}
	return nil
}
