package otlp

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/coppice-go/coppice/tracing"
)

// Bounds on a program's own instruments. A series beyond them is left out where it
// is counted; of a child that sends one all the same the payload is refused.
const (
	maxAttributes     = 32  // attributes of a series
	maxAttributeText  = 512 // bytes of a key or a value
	maxInstrumentText = 512 // bytes of a name, a version, a unit, a description
	maxBuckets        = 256
)

// instrumentName is OpenTelemetry's rule.
var instrumentName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]{0,254}$`)

// errInstrument is wrapped by what OpenTelemetry's error handler hears of series of a
// program's own instruments that are not exported.
var errInstrument = errors.New("tracing/otlp: instrument left out")

// check says what is wrong with an instrument of a program's own. The names that
// begin with ours are ours, also as Prometheus writes them.
func (m metric) check() error {
	switch {
	case !instrumentName.MatchString(m.name):
		return fmt.Errorf("%w: name %q", errInstrument, clip(m.name, 64))
	case strings.HasPrefix(strings.ToLower(m.name), "coppice"):
		return fmt.Errorf("%w: %s: the prefix coppice is taken", errInstrument, m.name)
	case !utf8.ValidString(m.unit + m.description + m.scope.name + m.scope.version + m.scope.schema):
		return fmt.Errorf("%w: %s: unit, description or scope is not UTF-8", errInstrument, m.name)
	case max(len(m.unit), len(m.description), len(m.scope.name), len(m.scope.version), len(m.scope.schema)) > maxInstrumentText:
		return fmt.Errorf("%w: %s: unit, description or scope of more than %d bytes", errInstrument, m.name, maxInstrumentText)
	}
	return nil
}

// isCoppice reports whether an instrument is said to be one of Coppice's own.
func (m metric) isCoppice() bool {
	return m.scope.name == tracing.ScopeName && strings.HasPrefix(m.name, "coppice.")
}

// checkCoppice is check for an instrument of Coppice's own: m takes the unit, the
// description and the scope that this release has for it. known is false for one of another
// release.
func (m *metric) checkCoppice() (known bool, err error) {
	own, known := coppiceMetrics[m.name]
	if !known {
		return false, nil
	}
	if m.kind != own.kind {
		return true, fmt.Errorf("%w: %s: not of its kind", errInstrument, m.name)
	}
	for _, p := range m.points {
		if m.kind == histogram && !slices.Equal(p.bounds, tracing.Bounds) {
			return true, fmt.Errorf("%w: %s: bounds of buckets", errInstrument, m.name)
		}
	}
	own.points = m.points
	*m = own
	return true, nil
}

// check says what is wrong with a series of m.
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
		case key == "le" && m.kind == histogram: // which Prometheus has for the buckets
			return bad("attribute le of a histogram")
		}
	}
	finite := func(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
	if !finite(p.f) {
		return bad("not a number")
	}
	switch m.kind {
	case level, gauge:
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

// checked returns what can be kept of metrics, and what is wrong with the rest.
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
