package control

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Guard protects a handler that a browser can reach: a page of another origin must not make the
// browser use it (CSRF), and a name that an attacker's DNS server points here must not make it read
// (DNS rebinding). So a request needs a Host that is an address, localhost, or one of hosts, and
// must not come from another origin: also a GET may take a profile.
func Guard(h http.Handler, hosts []string) http.Handler {
	origins := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knownHost(r.Host, hosts) {
			Error(w, http.StatusForbidden, errors.New("control: the Host "+r.Host+" is neither an address, nor localhost, nor one of the handler's Hosts"))
			return
		}
		post := *r // the check lets each GET pass
		post.Method = http.MethodPost
		if err := origins.Check(&post); err != nil {
			Error(w, http.StatusForbidden, errors.New("control: a request of another origin: "+err.Error()))
			return
		}
		h.ServeHTTP(w, r)
	})
}

func knownHost(host string, hosts []string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return name == "localhost" || slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, name) })
}
