package coppice

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/coppice-go/coppice/netactor/registry"
)

// firstActivated is the number of the first socket that systemd passes: SD_LISTEN_FDS_START in
// sd_listen_fds(3).
const firstActivated = 3

// activated returns the sockets that systemd started the program with. It removes the variables
// that name them, because no child has them. It keeps the files, so that nothing closes the
// numbers.
var activated = sync.OnceValue(func() []*os.File { return activation.Files(true) })

// resolveSystemd returns l with the number of its socket in place of SystemdName.
func (l ListenerSpec) resolveSystemd() (ListenerSpec, error) {
	name, files := l.SystemdName, activated()
	l.SystemdName = ""
	if name == "" || len(files) == 0 && l.Network != "" {
		return l, nil
	}
	want := 0
	if base, nth, ok := strings.Cut(name, ":"); ok { // names contain no colon: sd_listen_fds(3)
		var err error
		if want, err = strconv.Atoi(nth); err != nil {
			return l, fmt.Errorf("coppice: listener %s: SystemdName %q: %w", l.Name, name, err)
		}
		name = base
	}
	var names []string
	for i, f := range files {
		if !strings.HasPrefix(f.Name(), registry.StorePrefix) {
			names = append(names, f.Name())
		}
		if f.Name() != name {
			continue
		}
		if want == 0 {
			l.Network, l.Address, l.FD = "", "", firstActivated+i
			return l, nil
		}
		want--
	}
	has := "was not started with sockets (LISTEN_FDS)"
	if names != nil {
		has = "has " + strings.Join(names, ", ")
	}
	return l, fmt.Errorf("coppice: listener %s: no socket %q of systemd's: this program %s", l.Name, name, has)
}
