package jobs

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/runtime/internal/quarantine"
	"github.com/coppice-go/coppice/runtime/jobs/internal/rules"
)

// TestIdleStatus: the JSON of a queue that has no call has empty lists, which a page can go
// through.
func TestIdleStatus(t *testing.T) {
	q := &queueActor{rules: rules.New(rules.Config{Quarantine: &quarantine.Config{}})}
	b, err := json.Marshal(q.status())
	if err != nil || !strings.Contains(string(b), `"runs":[],"quarantine":[]`) || strings.Contains(string(b), "null") {
		t.Errorf("%s, error %v", b, err)
	}
}
