package coppice

import (
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/notify"
)

// storeVar has the number of descriptors that systemd keeps for the service. systemd sets it from
// version 254 on; before, the unit does.
const storeVar = "FDSTORE"

// theStore is what openStore returns: the program was started with its descriptors once.
var theStore struct {
	once sync.Once
	*notify.DescriptorStore
}

// openStore returns systemd's descriptor store, with the sockets that an earlier run of the program
// left there; nil if systemd has none for this program.
func openStore(log *slog.Logger) descriptorStore {
	theStore.once.Do(func() {
		address := os.Getenv("NOTIFY_SOCKET")
		if address == "" {
			return
		}
		ours := slices.DeleteFunc(slices.Clone(activated()), func(f *os.File) bool { return !strings.HasPrefix(f.Name(), registry.StorePrefix) })
		max, _ := strconv.Atoi(os.Getenv(storeVar))
		if max <= 0 && len(ours) == 0 {
			return
		}
		theStore.DescriptorStore = notify.NewDescriptorStore(log, address, max)
		for _, f := range ours {
			if fd, err := ownDescriptor(f); err == nil {
				theStore.Leave(f.Name(), fd)
			}
		}
	})
	if theStore.DescriptorStore == nil {
		return nil
	}
	return theStore.DescriptorStore
}

// ownDescriptor returns the descriptor of f under another number, and closes f.
func ownDescriptor(f *os.File) (fd int, err error) {
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	if cerr := rc.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) }); cerr != nil {
		return -1, cerr
	}
	return fd, err
}
