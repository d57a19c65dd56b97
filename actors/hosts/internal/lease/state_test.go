package lease

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestSteps plays scenarios: events, and what is to be done after each.
func TestSteps(t *testing.T) {
	type step struct {
		at   time.Duration
		ev   Event
		want string
	}
	const second = time.Second
	of := func(k EventKind) Event { return Event{Kind: k, Name: "a"} }
	claimed := func(token, revision uint64) Event {
		return Event{Kind: Claimed, Name: "a", Token: token, Revision: revision}
	}
	refused := func(token uint64, other int64, revision uint64) Event {
		return Event{Kind: Refused, Name: "a", Token: token, Other: other, Revision: revision}
	}
	failed := func(of EffectKind, token, revision uint64) Event {
		return Event{Kind: Failed, Of: of, Lease: 1, Name: "a", Token: token, Revision: revision}
	}
	seen := func(token, revision uint64) Event {
		return Event{Kind: Seen, Name: "a", Token: token, Lease: 1, Revision: revision}
	}
	vanished := func(revision uint64) Event { return Event{Kind: Vanished, Name: "a", Revision: revision} }
	renewed := func(sent time.Duration) Event { return Event{Kind: Renewed, Lease: 1, Sent: Time(sent)} }
	begin := []step{
		{0, of(Wake), "grant"},
		{0, Event{Kind: Granted, Lease: 1}, "enter 1"},
		{0, Event{Kind: Entered, Lease: 1, Revision: 7}, "arm 4.5s, session live"},
	}
	hold := append(begin[:3:3], step{0, of(Want), "claim a token 1 under 1, entered by 7"}, step{0, claimed(1, 8), "own a by 8"})
	for _, row := range []struct {
		name  string
		after []step
		steps []step
	}{
		{"a name is held and given back", hold, []step{
			{0, of(Want), ""},
			{second, of(Drop), "delete a made by 8"},
			{second, of(Want), ""},
			{second, Event{Kind: Deleted, Name: "a", Revision: 8}, "answer a: freed, claim a token 2 under 1, entered by 7"},
		}},
		{"a renewal counts from when it was sent", hold, []step{
			{1700 * time.Millisecond, of(Wake), "renew 1"},
			{3 * second, renewed(1700 * time.Millisecond), "arm 6.2s"},
			{3300 * time.Millisecond, of(Wake), ""},
			{3400 * time.Millisecond, of(Wake), "renew 1"},
			{4 * second, renewed(second), "renew 1"},
		}},
		{"the time is looked at before the event: an answer that comes late is none", hold, []step{
			{1700 * time.Millisecond, of(Wake), "renew 1"},
			{4500 * time.Millisecond, renewed(1700 * time.Millisecond), "disarm, session lost, stop a by 8"},
			{4600 * time.Millisecond, of(Drop), "answer a: lost, revoke 1, grant"},
		}},
		{"also that to a claim", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"},
			{5 * second, claimed(1, 8), "disarm, session lost, revoke 1, grant"},
			{5 * second, Event{Kind: Granted, Lease: 2, Sent: Time(5 * second)}, "enter 2"},
			{5 * second, Event{Kind: Entered, Lease: 2, Revision: 9}, "arm 9.5s, session live, claim a token 2 under 2, entered by 9"},
			{5 * second, claimed(1, 8), ""},
			{5 * second, claimed(2, 10), "own a by 10"},
		}},
		{"what does not stop is waited for until the lease may have ended, and is not claimed before it has", hold, []step{
			{4500 * time.Millisecond, of(Wake), "disarm, session lost, stop a by 8"},
			{4900 * time.Millisecond, of(Wake), ""},
			{5 * second, of(Wake), "revoke 1, grant"},
			{5 * second, Event{Kind: Granted, Lease: 2, Sent: Time(5 * second)}, "enter 2"},
			{5 * second, Event{Kind: Entered, Lease: 2, Revision: 9}, "arm 9.5s, session live"},
			{6 * second, of(Want), ""},
			{6 * second, of(Drop), "delete a made by 8"},
		}},
		{"what a claim has left under a former session is deleted, and is no other's", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"},
			{second, Event{Kind: Gone, Lease: 1}, "disarm, session lost, revoke 1, grant"},
			{second, Event{Kind: Granted, Lease: 2, Sent: Time(second)}, "enter 2"},
			{second, Event{Kind: Entered, Lease: 2, Revision: 9}, "arm 5.5s, session live, claim a token 2 under 2, entered by 9"},
			{second, Event{Kind: Refused, Name: "a", Token: 2, Other: 1, Owner: "me", Revision: 8}, "delete a made by 8"},
			{second, Event{Kind: Deleted, Name: "a", Revision: 8}, "claim a token 3 under 2, entered by 9"},
		}},
		{"the lease is gone", hold, []step{{second, Event{Kind: Gone, Lease: 1}, "disarm, session lost, stop a by 8"}}},
		{"a grant that took too long is given back", nil, []step{
			{0, of(Wake), "grant"}, {5 * second, Event{Kind: Granted, Lease: 1}, "disarm, revoke 1, grant"},
		}},
		{"a claim in doubt is made again under its token", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"},
			{second, failed(Claim, 1, 0), ""},
			{1250 * time.Millisecond, of(Wake), "claim a token 1 under 1, entered by 7"},
			{1300 * time.Millisecond, claimed(1, 8), "own a by 8"},
		}},
		{"who wanted it has gone: what the watch has shown is deleted", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"}, {0, of(Drop), ""}, {0, seen(1, 8), ""}, {second, failed(Claim, 1, 0), "delete a made by 8"},
		}},
		{"and what it shows later", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"},
			{0, of(Drop), ""},
			{second, failed(Claim, 1, 0), ""},
			{second, seen(1, 8), "delete a made by 8"},
			{second, failed(Delete, 0, 8), ""},
			{1250 * time.Millisecond, of(Wake), "delete a made by 8"},
		}},
		{"wanted anew meanwhile: by a claim of its own", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"},
			{0, of(Drop), ""},
			{0, of(Want), ""},
			{second, claimed(1, 8), "delete a made by 8"},
			{second, Event{Kind: Deleted, Name: "a", Revision: 8}, "claim a token 2 under 1, entered by 7"},
		}},
		{"a claim meets what the session has left", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"},
			{0, refused(1, 1, 8), "delete a made by 8"},
			{0, Event{Kind: Deleted, Name: "a", Revision: 8}, "claim a token 2 under 1, entered by 7"},
			{0, refused(2, 5, 9), "answer a: taken"},
		}},
		{"another hand deletes it", hold, []step{{0, vanished(5), ""}, {0, vanished(8), "stop a by 8"}, {0, vanished(8), ""}, {0, of(Drop), "delete a made by 8"}}},
		{"before the answer to the claim has come", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"}, {0, seen(1, 8), ""}, {0, vanished(8), ""}, {0, claimed(1, 8), "claim a token 2 under 1, entered by 7"},
		}},
		{"a listing does not have it", hold, []step{
			{0, Event{Kind: Listed, Revision: 7, Entered: 7}, ""},
			{0, Event{Kind: Listed, Revision: 9, Entered: 7, Made: map[string]uint64{"a": 8}}, ""},
			{0, Event{Kind: Listed, Revision: 9, Entered: 7, Made: map[string]uint64{"a": 9}}, "stop a by 8"},
		}},
		{"a listing does not have what is being claimed", begin, []step{
			{0, of(Want), "claim a token 1 under 1, entered by 7"},
			{0, Event{Kind: Listed, Revision: 9, Entered: 7}, ""},
			{0, claimed(1, 8), "claim a token 2 under 1, entered by 7"},
			{0, claimed(2, 10), "own a by 10"},
		}},
		{"a listing does not have the host", hold, []step{
			{0, Event{Kind: Listed, Revision: 9, Made: map[string]uint64{"a": 8}}, "disarm, session lost, stop a by 8"},
		}},
		{"the host's entry is deleted", hold, []step{{0, Event{Kind: Vanished, Revision: 7}, "disarm, session lost, stop a by 8"}}},
		{"another host has the name of this one", nil, []step{
			{0, of(Wake), "grant"},
			{0, Event{Kind: Granted, Lease: 1}, "enter 1"},
			{0, Event{Kind: Barred, Lease: 1, Other: 9, Boot: "other"}, "session taken, revoke 1"},
			{900 * time.Millisecond, of(Wake), ""},
			{second, of(Wake), "grant"},
		}},
		{"a session of this boot, and the one before, are ended", nil, []step{
			{0, of(Wake), "grant"},
			{0, Event{Kind: Granted, Lease: 1}, "enter 1"},
			{0, Event{Kind: Barred, Lease: 1, Other: 9, Owner: "me"}, "revoke 9"},
			{250 * time.Millisecond, of(Wake), "enter 1"},
			{250 * time.Millisecond, Event{Kind: Barred, Lease: 1, Other: 3, Boot: "before"}, "revoke 3"},
			{500 * time.Millisecond, of(Wake), "enter 1"},
			{500 * time.Millisecond, Event{Kind: Barred, Lease: 1, Other: 1, Owner: "me", Revision: 7}, "arm 4.5s, session live"},
		}},
		{"a close waits for what is held, and renews meanwhile", hold, []step{
			{0, of(Close), "stop a by 8"},
			{0, of(Want), "answer a: closing"},
			{2 * second, of(Wake), "renew 1"},
			{2 * second, renewed(2 * second), "arm 6.5s"},
			{3 * second, of(Drop), "answer a: lost, disarm, revoke 1"},
			{3 * second, Event{Kind: Revoked, Lease: 1}, "end"},
			{3 * second, of(Want), ""},
		}},
		{"an aborted close leaves the lease", hold, []step{{0, of(Close), "stop a by 8"}, {0, of(Abort), "disarm, end"}}},
		{"a close without a session", nil, []step{{0, of(Wake), "grant"}, {0, of(Close), ""}, {0, Event{Kind: Failed, Of: Grant}, "end"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := New(Config{TTL: 5 * second, Margin: second / 2, Owner: "me", Before: 3})
			for i, step := range append(row.after[:len(row.after):len(row.after)], row.steps...) {
				var got []string
				for _, e := range s.Step(Time(step.at), step.ev) {
					got = append(got, fmt.Sprint(e))
				}
				if strings.Join(got, ", ") != step.want {
					t.Fatalf("step %d, %v at %v: %q, want %q", i, step.ev.Kind, step.at, got, step.want)
				}
			}
		})
	}
}
