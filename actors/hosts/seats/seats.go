// Package seats has what an operator does to the seats of an engine that runs in the hosts
// (hosts/etcd's Embedded), for commands: it needs none of etcd's code. What it asks for by a file
// is done by the member of the directory, in its process.
package seats

import (
	"bytes"
	"context"
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
	ClientSocket = "client.sock"   // where the engine answers
	RecoverFile  = "recover"       // what Recover writes, and the member removes when it has done it
	Snapshot     = "recover.db"    // its copy of a snapshot; not there: the member's own state
	Former       = "member.former" // the state that a member has moved away, of the last time
)

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
// which Replace is called, which may be any of the cluster. It needs a majority of the seats, and
// until the new member is up there is one vote less. It waits as long as ctx does for a
// leader, and for the others to have been up for some seconds. Called again it begins anew.
func Replace(ctx context.Context, dir, host string) error {
	c := client(filepath.Join(dir, ClientSocket))
	for {
		err := replace(ctx, c, host)
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

func replace(ctx context.Context, c *http.Client, host string) error {
	var all struct {
		Members []seatMember `json:"members"`
	}
	if err := call(ctx, c, "list", map[string]bool{"linearizable": true}, &all); err != nil {
		return err
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
// beside this one.
func Recover(dir, snapshot string) error {
	bad := func(err error) error { return fmt.Errorf("seats: recover the engine in %s: %w", dir, err) }
	if _, err := os.Stat(dir); err != nil {
		return bad(err)
	}
	c := client(filepath.Join(dir, ClientSocket))
	if call(context.Background(), c, "list", map[string]bool{"linearizable": true}, nil) == nil {
		return bad(errors.New("the engine answers, so it has a majority: nothing is lost"))
	}
	if err := os.Remove(filepath.Join(dir, RecoverFile)); err != nil && !os.IsNotExist(err) { // one before is over
		return bad(err)
	}
	if err := os.Remove(filepath.Join(dir, Snapshot)); err != nil && !os.IsNotExist(err) {
		return bad(err)
	}
	if snapshot != "" {
		in, err := os.Open(snapshot)
		if err != nil {
			return bad(err)
		}
		defer in.Close()
		if err := write(filepath.Join(dir, Snapshot), in); err != nil {
			return bad(err)
		}
	}
	if err := write(filepath.Join(dir, RecoverFile), strings.NewReader("asked for "+time.Now().Format(time.RFC3339)+"\n")); err != nil {
		return bad(err)
	}
	return nil
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
