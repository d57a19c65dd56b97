// Package seats has what an operator does to the seats of an engine that runs in the hosts
// (hosts/etcd's Embedded), for commands: it needs none of etcd's code. What it asks for by a file
// is done by the member of the directory, in its process.
package seats

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Names of files in the directory of a seat.
const (
	File         = "seat.json"     // a Seat, once a member has started
	ClientSocket = "client.sock"   // where the engine answers
	RecoverFile  = "recover"       // what Recover writes, and the member removes when it has done it
	Snapshot     = "recover.db"    // its copy of a snapshot; not there: the member's own state
	Recovering   = "recovering"    // what the member has made of either, until it is its state
	Former       = "member.former" // the state that a member has moved away, of the last time
)

// Seat says whose a directory is, in File.
type Seat struct {
	Host   string   `json:"host"`
	Member string   `json:"member"` // etcd's numbers of the member
	Engine string   `json:"engine"` // and of all members
	Seats  []string `json:"seats"`  // the hosts that have one, as the member was configured
}

// Read returns what File in dir says. Errors: os.ErrNotExist if no member has started there.
func Read(dir string) (s Seat, err error) {
	b, err := os.ReadFile(filepath.Join(dir, File))
	if err != nil {
		return s, err
	}
	if err = json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: %w", filepath.Join(dir, File), err)
	}
	return s, nil
}

// PeerURL is by what the seat of a host is known to the others.
func PeerURL(host string) string { return "unix://" + host + ".peer:80" }

// Host is the host of a PeerURL; "" if it is none.
func Host(peerURL string) string {
	host, ok := strings.CutSuffix(strings.TrimPrefix(peerURL, "unix://"), ".peer:80")
	if !ok {
		return ""
	}
	return host
}

const (
	limit = 10 * time.Second       // of each call of the engine
	pause = 500 * time.Millisecond // between two
)

// seatMember is one of the engine's, as its JSON has it.
type seatMember struct {
	ID       string   `json:"ID"`
	Name     string   `json:"name"`
	PeerURLs []string `json:"peerURLs"`
}

// Replace has the seat of a host be filled anew: the member that sits there is put out of the
// engine, if there is one, and the host's next one is let in, with nothing but what the others send
// it; state that it still has is moved away. dir is the directory of the engine on the host on
// which Replace is called, best one that has a seat: it knows the seats, of which host must be one.
// One without knows those that are in the engine now. It needs a majority of the seats, and until
// the new member is up there is one vote less. It waits as long as ctx does for a leader, and for
// the others to have been up for some seconds. Called again it begins anew.
func Replace(ctx context.Context, dir, host string) error {
	c := client(filepath.Join(dir, ClientSocket))
	seat, err := Read(dir)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("seats: replace the seat of host %q: %w", host, err)
	}
	for {
		err := replace(ctx, c, &seat, host)
		if err == nil {
			return nil
		}
		if refusal, ok := errors.AsType[*refusal](err); ok && refusal.code == http.StatusServiceUnavailable {
			select {
			case <-time.After(pause): // its leader has changed, or a member has not been up for some seconds
				continue
			case <-ctx.Done():
			}
		}
		return fmt.Errorf("seats: replace the seat of host %q: %w", host, err)
	}
}

// replace replaces the seat of a host. To a seat that does not know of others it adds those that
// are in the engine.
func replace(ctx context.Context, c *http.Client, seat *Seat, host string) error {
	var all struct {
		Members []seatMember `json:"members"`
	}
	if err := call(ctx, c, "list", map[string]bool{"linearizable": true}, &all); err != nil {
		return err
	}
	as := ""
	if len(seat.Seats) == 0 { // there is no member here
		as = " in the engine now, and this host has none, which would know of others,"
		for _, m := range all.Members {
			for _, url := range m.PeerURLs {
				seat.Seats = append(seat.Seats, Host(url))
			}
		}
	}
	if !slices.Contains(seat.Seats, host) {
		return fmt.Errorf("it has no seat; those with one%s are %s", as, strings.Join(seat.Seats, ", "))
	}
	url := PeerURL(host)
	i := slices.IndexFunc(all.Members, func(m seatMember) bool { return slices.Contains(m.PeerURLs, url) })
	if i >= 0 && len(all.Members) == 1 {
		return errors.New("it is the only one: no other member has its state")
	}
	if i >= 0 {
		if err := call(ctx, c, "remove", map[string]string{"ID": all.Members[i].ID}, nil); err != nil {
			return fmt.Errorf("put the former member out: %w", err)
		}
	}
	if err := call(ctx, c, "add", map[string][]string{"peerURLs": {url}}, nil); err != nil {
		return fmt.Errorf("let the next member in: %w; replace it again", err)
	}
	return nil
}

// A refusal is the engine's answer that it does not do what it was asked for.
type refusal struct {
	code            int
	status, message string
}

func (r *refusal) Error() string {
	return fmt.Sprintf("the engine answers %s: %.300s", r.status, r.message)
}

// Recover has the member of dir, on this host, be the first and only one of a new engine, when a
// majority of the seats is lost for good. It begins with the entries of a snapshot (etcdctl
// snapshot save), or of its own state, if snapshot is ""; with none, if it has no state. Its
// revisions, and so all fences, are above those of the former engine. The state of before is moved
// away, and the other seats are replaced afterwards, one after the other.
//
// Recover returns when that is asked for; the member does it within seconds, or when its host
// starts. The seats that are given up must not form a majority once more: they would be an engine
// beside this one. Nothing is changed, and an error says why, if the engine has a majority, a
// snapshot is damaged, another seat that is reached is in another engine, as one that was recovered
// is, or a recovery is asked for already.
func Recover(dir, snapshot string) error {
	bad := func(err error) error { return fmt.Errorf("seats: recover the engine in %s: %w", dir, err) }
	if _, err := os.Stat(dir); err != nil {
		return bad(err)
	}
	c := client(filepath.Join(dir, ClientSocket))
	if call(context.Background(), c, "list", map[string]bool{"linearizable": true}, nil) == nil {
		return bad(errors.New("the engine answers, so it has a majority: nothing is lost"))
	}
	asked := filepath.Join(dir, RecoverFile)
	if b, err := os.ReadFile(asked); !os.IsNotExist(err) {
		return bad(fmt.Errorf("it was %.80s already: the member does it when it starts, or logs why it cannot; remove %s to ask for something else", bytes.TrimSpace(b), asked))
	}
	seat, err := Read(dir)
	if err != nil && !os.IsNotExist(err) {
		return bad(err)
	}
	for _, other := range seat.Seats {
		if engine := engineOf(dir, other); other != seat.Host && engine != "" && engine != seat.Engine {
			return bad(fmt.Errorf("the seat of host %s is in another engine, which was recovered: replace the seat of host %s there", other, seat.Host))
		}
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, Recovering)), os.RemoveAll(filepath.Join(dir, Snapshot))); err != nil {
		return bad(err)
	}
	if snapshot != "" {
		if err := copySnapshot(filepath.Join(dir, Snapshot), snapshot); err != nil {
			return bad(fmt.Errorf("%s: %w", snapshot, err))
		}
	}
	if err := write(filepath.Join(dir, RecoverFile), strings.NewReader("asked for "+time.Now().Format(time.RFC3339)+"\n")); err != nil {
		return bad(err)
	}
	return nil
}

// copySnapshot copies a snapshot, if it is one: at its end is the checksum of what is before, and
// what is before is in blocks of 512 bytes.
func copySnapshot(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := write(to, in); err != nil {
		return err
	}
	b, err := os.Open(to)
	if err != nil {
		return err
	}
	defer b.Close()
	i, err := b.Stat()
	if err == nil && (i.Size()%512 != sha256.Size || i.Size() == sha256.Size) {
		err = errors.New("it is no snapshot of etcdctl snapshot save: it has no checksum")
	}
	h := sha256.New()
	if err == nil {
		_, err = io.CopyN(h, b, i.Size()-sha256.Size)
	}
	if err == nil {
		var sum []byte
		if sum, err = io.ReadAll(b); err == nil && !bytes.Equal(sum, h.Sum(nil)) {
			err = errors.New("the snapshot is damaged: its checksum is another one")
		}
	}
	if err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// engineOf returns etcd's number of the engine that the seat of a host is in; "" if it does not
// answer.
func engineOf(dir, host string) string {
	url := PeerURL(host)
	resp, err := client(filepath.Join(dir, strings.TrimPrefix(url, "unix://"))).Get("http://" + host + "/members")
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	return resp.Header.Get("X-Etcd-Cluster-ID")
}

// write makes a file whole or not at all.
func write(path string, from io.Reader) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), path)
}

func client(socket string) *http.Client {
	return &http.Client{Timeout: limit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
}

// call calls what etcd has for its members, by JSON over HTTP.
func call(ctx context.Context, c *http.Client, op string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/v3/cluster/member/"+op, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("no engine answers: %w", err)
	}
	defer resp.Body.Close()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20)); err != nil {
		return fmt.Errorf("no engine answers: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var failed struct {
			Message string `json:"message"`
		}
		_ = json.Unmarshal(b, &failed) // else the status says it
		return &refusal{resp.StatusCode, resp.Status, failed.Message}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}
