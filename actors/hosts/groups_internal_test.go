package hosts

import (
	"crypto/rand"
	"io"
	"log/slog"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts/internal/group"
	"github.com/coppice-go/coppice/actors/hosts/internal/trunk"
)

// received is the context of one message to a directory.
type received struct {
	actor.Context
	msg    any
	sender *actor.PID
	sent   []any
}

func (r *received) Message() any             { return r.msg }
func (r *received) Sender() *actor.PID       { return r.sender }
func (r *received) Send(_ *actor.PID, a any) { r.sent = append(r.sent, a) }
func (r *received) Respond(a any)            { r.sent = append(r.sent, a) }

// TestLateNews: what comes late of a trunk that is lost, to a former boot of the host or to the
// same one, changes nothing of what there is by the next trunk, whose poll is answered. A poll for
// what has changed since a version that is forgotten is answered with all.
func TestLateNews(t *testing.T) {
	for name, boot := range map[string]string{"the same boot": "one", "another boot": "two"} {
		t.Run(name, func(t *testing.T) {
			s, err := actors.NewSystem(actors.Config{Address: "boota.1", Host: "a", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Shutdown(t.Context()) //nolint:errcheck // it has no actors
			d := newDirectory(s, "a")
			tell := func(msg any, from string) []any {
				r := &received{msg: msg}
				if from != "" {
					r.sender = actor.NewPID(from+".1", "ask")
				}
				d.Receive(r)
				return r.sent
			}
			lists := func(boot string) []group.List {
				return []group.List{{Group: "g", Host: "b", Members: []group.Member{{Name: "x", Address: boot + ".2", ID: "c"}}}}
			}
			first, second := new(trunk.Trunk), new(trunk.Trunk)
			tell(foreignUp{first, trunk.Host{Name: "b", Boot: "one"}}, "")
			tell(foreignLists{first, lists("one"), true}, "")
			poll := groupPoll{Directory: d.name, After: d.known.Version()}
			tell(poll, "one")
			tell(foreignLost{first}, "")
			tell(foreignUp{second, trunk.Host{Name: "b", Boot: boot}}, "")
			tell(foreignLists{second, lists(boot), true}, "")
			tell(foreignLists{first, nil, true}, "")
			if got := d.known.Since(0, false); len(got) != 1 || got[0].Members[0].Address != boot+".2" {
				t.Errorf("after late lists: %v", got)
			}
			poll.After = d.known.Version()
			tell(poll, boot)
			if boot != "one" {
				tell(poll, "one") // which comes late
			}
			if len(d.polls) != 1 {
				t.Errorf("it holds %v", d.polls)
			}
			if !d.known.Join("g", group.Member{Name: "y", Address: "boota.7", ID: "c"}, 7) {
				t.Fatal("it does not join")
			}
			sent := tell(foreignUp{new(trunk.Trunk), trunk.Host{Name: "c", Boot: "three"}}, "")
			if a, ok := sent[0].(groupLists); len(sent) != 1 || !ok || len(a.Lists) != 1 || a.Lists[0].Host != "a" {
				t.Errorf("the poll is answered with %+v", sent)
			}
			for d.known.Forgotten() == 0 {
				y := group.Member{Name: "y", Address: "boota.7", ID: rand.Text()}
				d.known.Join(y.ID, y, 7)
				d.known.Leave("", y.Address, y.ID)
			}
			if a, ok := tell(poll, boot)[0].(groupLists); !ok || !a.All {
				t.Error("who is late is not told all")
			}
		})
	}
}
