//go:build linux

package coppice_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["of another version"] = func() coppice.Config {
		if hello := os.Getenv("HELLO"); coppice.IsChild() && hello != "" {
			const channel = 10 // of a child without files
			if _, err := unix.Write(channel, unhex(hello)); err != nil {
				panic(err)
			}
			if err := unix.SetNonblock(channel, false); err != nil {
				panic(err)
			}
			_, _ = io.Copy(io.Discard, os.NewFile(channel, "channel")) // until the master ends it
			<-make(chan struct{})
		}
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		cfg.ListenerIsolation = coppice.GoroutineIsolation
		cfg.OrphanDrain = coppice.None
		return cfg
	}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// TestUnknownProtocol: a program of a release whose hello the master cannot understand does not
// start, and the master's last words to it are the reason. The master's log has it too, as the
// child may live on.
func TestUnknownProtocol(t *testing.T) {
	hello := func(magic uint32, version uint16) string { // docs/protocol.md, section 4
		b := append(binary.LittleEndian.AppendUint32(nil, 24), 0x01, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		b = binary.LittleEndian.AppendUint32(b, magic)
		b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, version), version)
		b = append(b, make([]byte, 8)...)
		return string(binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, 1<<20), 256))
	}
	for why, hello := range map[string]string{
		"no common protocol version: peer speaks 9 to 9, this side 1": hello(0x43495043, 9),
		"protocol error": hello(0x12345678, 1),
	} {
		t.Run(why, func(t *testing.T) {
			t.Parallel()
			p := runtimetest.Start(t, []string{treeVar + "=of another version", "HELLO=" + hex.EncodeToString([]byte(hello))})
			if code := p.Wait(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			lines := p.Lines()
			if last := lines[len(lines)-1]; !strings.Contains(last, "web/0 did not start: ") || !strings.Contains(last, why) {
				t.Errorf("it says %q", last)
			}
			if !strings.Contains(strings.Join(lines, "\n"), "the channel of a child is ended") {
				t.Error("it is not in the log")
			}
		})
	}
}
