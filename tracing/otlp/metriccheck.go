package otlp

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/coppice-go/coppice/tracing"
)

// Bounds on an instrument and its series. A process leaves out series of the program's
// instruments that exceed them; the master refuses a payload that has one.
const (
	maxAttributes     = 32  // attributes of a series
	maxAttributeText  = 512 // bytes of a key or a value
	maxInstrumentText = 512 // bytes of a name, a version, a unit, a description
	maxBuckets        = 256
)

// instrumentName reports whether an instrument can have a name, by OpenTelemetry's rule.
func instrumentName(s string) bool {
	letter := func(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
	for i := range len(s) {
		if c := s[i]; !letter(c) && (i == 0 || !('0' <= c && c <= '9') && !strings.ContainsRune("_./-", rune(c))) {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// errInstrument is wrapped by the errors that OpenTelemetry's error handler gets for series
// of the program's instruments that are not exported.
var errInstrument = errors.New("tracing/otlp: instrument left out")

// check returns an error if an instrument of the program is out of bounds, or has a name
// with Coppice's prefix, in OpenTelemetry's or in Prometheus's form.
func (m metric) check() error {
	switch {
	case !instrumentName(m.name):
		return fmt.Errorf("%w: name %q", errInstrument, clip(m.name, 64))
	case strings.HasPrefix(strings.ToLower(m.name), "coppice"):
		return fmt.Errorf("%w: %s: the prefix coppice is taken", errInstrument, m.name)
	case m.kind == unknown:
		return fmt.Errorf("%w: %s: a histogram without fixed buckets", errInstrument, m.name)
	case !utf8.ValidString(m.unit + m.description + m.scope.name + m.scope.version + m.scope.schema):
		return fmt.Errorf("%w: %s: unit, description or scope is not UTF-8", errInstrument, m.name)
	case max(len(m.unit), len(m.description), len(m.scope.name), len(m.scope.version), len(m.scope.schema)) > maxInstrumentText:
		return fmt.Errorf("%w: %s: unit, description or scope of more than %d bytes", errInstrument, m.name, maxInstrumentText)
	}
	return nil
}

// isCoppice reports whether the instrument claims to be Coppice's.
func (m metric) isCoppice() bool {
	return m.scope.name == tracing.ScopeName && strings.HasPrefix(m.name, "coppice.")
}

// checkCoppice is check for an instrument of Coppice. m takes the scope, the unit and the
// description that this release has for it. known is false for an instrument of another release.
func (m *metric) checkCoppice() (known bool, err error) {
	own, known := coppiceMetrics()[m.name]
	if !known {
		return false, nil
	}
	if m.kind != own.kind {
		return true, fmt.Errorf("%w: %s: not of its kind", errInstrument, m.name)
	}
	for _, p := range m.points {
		if m.kind == histogram && !slices.Equal(p.bounds, own.bounds) {
			return true, fmt.Errorf("%w: %s: bounds of buckets", errInstrument, m.name)
		}
	}
	own.points = m.points
	*m = own
	return true, nil
}

// check returns an error if a series of m is out of bounds.
func (p dataPoint) check(m metric) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: %s: %s", errInstrument, m.name, why)
	}
	if p.labels.Len() > maxAttributes {
		return bad("too many attributes")
	}
	for it := p.labels.Iter(); it.Next(); {
		kv := it.Attribute()
		key, value := string(kv.Key), kv.Value.String()
		switch {
		case key == "" || !utf8.ValidString(key+value):
			return bad(fmt.Sprintf("attribute %q is not UTF-8, or has no name", clip(key, 64)))
		case max(len(key), len(value)) > maxAttributeText:
			return bad(fmt.Sprintf("attribute %q of more than %d bytes", clip(key, 64), maxAttributeText))
		case key == "le" && m.kind == histogram: // Prometheus uses it for the buckets
			return bad("attribute le of a histogram")
		case m.kind == gauge && strings.ReplaceAll(key, ".", "_") == "coppice_actor_path": // the master adds it
			return bad("attribute " + key + " of a gauge")
		}
	}
	finite := func(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
	if !finite(p.f) {
		return bad("not a number")
	}
	switch m.kind {
	case level, gauge, unknown:
	case counter:
		if p.n < 0 || p.f < 0 {
			return bad("a counter below zero")
		}
	case histogram:
		if len(p.buckets) != len(p.bounds)+1 || len(p.buckets) > maxBuckets {
			return bad("buckets")
		}
		for i, b := range p.bounds {
			if !finite(b) || i > 0 && b <= p.bounds[i-1] {
				return bad("bounds of buckets")
			}
		}
		if len(p.exemplars) > len(p.buckets) {
			return bad("too many exemplars")
		}
	}
	return nil
}

// checked returns the metrics that are in bounds, and errors for the others.
func checked(metrics []metric) (good []metric, err error) {
	for _, m := range metrics {
		if e := m.check(); e != nil {
			err = errors.Join(err, e)
			continue
		}
		points := m.points
		m.points = nil
		for _, p := range points {
			if e := p.check(m); e != nil {
				err = errors.Join(err, e)
				continue
			}
			m.points = append(m.points, p)
		}
		if len(m.points) > 0 {
			good = append(good, m)
		}
	}
	return good, err
}
