package hosts_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/actors/hosts"
)

// TestAskMembers: what a host knows of the others: which have a trunk, since when, and why not;
// which have a session with the engine, and how many names they hold.
func TestAskMembers(t *testing.T) {
	c, m := newAgreeing(t, "a", "b")
	from := c.hosts["a"].child("a")
	var last hosts.Members
	shows := func(want string) {
		t.Helper()
		until(t, "it shows "+want, func() bool {
			var err error
			if last, err = hosts.AskMembers(t.Context(), from.System); err != nil {
				return false
			}
			var b strings.Builder
			for _, h := range last.Hosts {
				fmt.Fprintf(&b, "%s %s %s %v %d; ", h.Name, h.Boot, h.State, h.Session, h.Names)
			}
			return b.String() == want
		})
	}
	shows("a boota self true 0; b bootb up true 0; c  never up false 0; ")
	up := last.Hosts[1].Since
	p := c.hosts["b"].child("b")
	for _, name := range []string{"x", "y"} {
		if _, err := c.names(p, "b").Register(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	shows("a boota self true 0; b bootb up true 2; c  never up false 0; ")
	if last.Cluster != "shop" || last.Host != "a" || last.Hosts[1].Address != at("b") || last.Hosts[1].Since != up || !last.Engine || last.Unavailable != "" {
		t.Errorf("%+v", last)
	}
	c.hosts["b"].gateway.kill(killed)
	shows("a boota self true 0; b bootb unreachable false 2; c  never up false 0; ")
	if h := last.Hosts[1]; h.Why == "" || !h.Since.After(up) {
		t.Errorf("%+v", h)
	}
	c.start("b", "bootb2")
	shows("a boota self true 0; b bootb2 up true 2; c  never up false 0; ")
	m.Cut("a", true)
	shows("a boota self true 0; b bootb2 up true 2; c  never up false 0; ") // as it was last
	until(t, "the engine is not reached", func() bool {
		m, err := hosts.AskMembers(t.Context(), from.System)
		return err == nil && m.Unavailable != ""
	})
}
