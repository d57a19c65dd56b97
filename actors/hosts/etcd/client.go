package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"

	"github.com/coppice-go/coppice/actors/hosts"
)

// reconnect is how soon a connection is tried again that was refused, as those to a member are that
// is being started.
var reconnect = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}

// External is an etcd that runs by itself. It is a value: compared, logged; the password is in it.
type External struct {
	Endpoints          []string  // URLs: http, https, or unix:///path of a socket
	TLS                hosts.TLS // for https; CA "": the system's
	Username, Password string    // of etcd's authentication; "": none
}

// Validate does what hosts.EngineSpec says.
func (x External) Validate(string) error {
	var errs []error
	if len(x.Endpoints) == 0 {
		errs = append(errs, errors.New("External.Endpoints: none"))
	}
	if (x.TLS.Cert == "") != (x.TLS.Key == "") {
		errs = append(errs, fmt.Errorf("External.TLS: Cert %q and Key %q: both or neither", x.TLS.Cert, x.TLS.Key))
	}
	return errors.Join(errs...)
}

// Open does what hosts.EngineSpec says.
func (x External) Open(host string) (hosts.Engine, error) {
	if err := x.Validate(host); err != nil {
		return nil, fmt.Errorf("hosts/etcd: %w", err)
	}
	cfg := clientv3.Config{
		Endpoints: x.Endpoints, Username: x.Username, Password: x.Password, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnect, MinConnectTimeout: time.Second})},
		// Less than 10 s is not possible, and without a stream, as a watch is, etcd takes it for an
		// attack.
		DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 2 * time.Second,
	}
	if x.TLS != (hosts.TLS{}) {
		info := transport.TLSInfo{CertFile: x.TLS.Cert, KeyFile: x.TLS.Key, TrustedCAFile: x.TLS.CA, MinVersion: tls.VersionTLS13}
		config, err := info.ClientConfig() // which reads the files of the certificate again at each handshake
		if err != nil {
			return nil, fmt.Errorf("hosts/etcd: External.TLS: %w", err)
		}
		cfg.TLS = config
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("hosts/etcd: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &client{c: c, closed: ctx, end: cancel}, nil
}

// client is an engine on a connection to etcd.
type client struct {
	c      *clientv3.Client
	closed context.Context // ends with Close
	end    context.CancelFunc
	once   sync.Once
	err    error
}

// fail says what an error of etcd is for an engine's caller.
func (c *client) fail(ctx context.Context, op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("hosts/etcd: %s: %w", op, hosts.ErrNoLease)
	case errors.Is(err, rpctypes.ErrCompacted):
		return fmt.Errorf("hosts/etcd: %s: %w", op, hosts.ErrCompacted)
	case ctx.Err() != nil:
		if why := c.refused(); why != nil {
			return fmt.Errorf("hosts/etcd: %s: %w: %w: %w", op, hosts.ErrUnavailable, context.Cause(ctx), why)
		}
		return fmt.Errorf("hosts/etcd: %s: %w: %w", op, hosts.ErrUnavailable, context.Cause(ctx))
	case c.closed.Err() != nil:
		return fmt.Errorf("hosts/etcd: %s: closed: %w", op, hosts.ErrUnavailable)
	}
	var of rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &of) {
		code = of.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Aborted, codes.Internal, codes.Unknown:
		return fmt.Errorf("hosts/etcd: %s: %w: %w", op, hosts.ErrUnavailable, err)
	default:
		return fmt.Errorf("hosts/etcd: %s: %w", op, err)
	}
}

// refused returns why there is no connection, such as a certificate that the other side does not
// take; nil if that is not known. A call waits for a connection, and does not say that.
func (c *client) refused() error {
	conn := c.c.ActiveConnection()
	if c.closed.Err() != nil || conn.GetState() != connectivity.TransientFailure {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.closed, 50*time.Millisecond)
	defer cancel()
	_, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("why"), Serializable: true}, grpc.WaitForReady(false))
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func entry(kv *mvccpb.KeyValue) hosts.Entry {
	return hosts.Entry{
		Key: string(kv.Key), Value: kv.Value, Lease: hosts.Lease(kv.Lease),
		Created: uint64(kv.CreateRevision), Modified: uint64(kv.ModRevision),
	}
}

// Commit does what hosts.Engine says: a transaction of etcd, whose reads are linearizable.
func (c *client) Commit(ctx context.Context, t hosts.Txn) (hosts.Result, error) {
	var conds []clientv3.Cmp
	for _, cond := range t.If {
		conds = append(conds, clientv3.Compare(clientv3.CreateRevision(cond.Key), "=", int64(cond.Created)))
	}
	var then, reads []clientv3.Op
	for _, op := range t.Then {
		if op.Delete {
			then = append(then, clientv3.OpDelete(op.Key))
		} else {
			then = append(then, clientv3.OpPut(op.Key, string(op.Value), clientv3.WithLease(clientv3.LeaseID(op.Lease))))
		}
	}
	for _, key := range t.Read {
		reads = append(reads, clientv3.OpGet(key))
	}
	resp, err := c.c.Txn(ctx).If(conds...).Then(append(then, reads...)...).Else(reads...).Commit()
	if err != nil {
		return hosts.Result{}, c.fail(ctx, "commit", err)
	}
	res := hosts.Result{Done: resp.Succeeded, Revision: uint64(resp.Header.Revision)}
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			res.Entries = append(res.Entries, entry(kv))
		}
	}
	return res, nil
}

// List does what hosts.Engine says.
func (c *client) List(ctx context.Context, prefix string) (hosts.Listing, error) {
	resp, err := c.c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
	if err != nil {
		return hosts.Listing{}, c.fail(ctx, "list", err)
	}
	l := hosts.Listing{Revision: uint64(resp.Header.Revision)}
	for _, kv := range resp.Kvs {
		l.Entries = append(l.Entries, entry(kv))
	}
	return l, nil
}

// Watch does what hosts.Engine says. A member without a leader ends it, rather than be silent.
func (c *client) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[hosts.Changes, error] {
	return func(yield func(hosts.Changes, error) bool) {
		mine, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		defer cancel()
		defer context.AfterFunc(c.closed, cancel)()
		for resp := range c.c.Watch(mine, prefix, clientv3.WithPrefix(), clientv3.WithRev(int64(after)+1)) {
			if err := resp.Err(); err != nil {
				yield(hosts.Changes{}, c.fail(ctx, "watch", err))
				return
			}
			for rest := resp.Events; len(rest) > 0; {
				changes := hosts.Changes{Revision: uint64(rest[0].Kv.ModRevision)}
				for len(rest) > 0 && uint64(rest[0].Kv.ModRevision) == changes.Revision {
					changes.Changes = append(changes.Changes, hosts.Change{Entry: entry(rest[0].Kv), Deleted: rest[0].Type == clientv3.EventTypeDelete})
					rest = rest[1:]
				}
				if !yield(changes, nil) {
					return
				}
			}
		}
		yield(hosts.Changes{}, c.fail(ctx, "watch", errors.New("ended")))
	}
}

// Grant does what hosts.Engine says. The lease is of whole seconds.
func (c *client) Grant(ctx context.Context, ttl time.Duration) (hosts.Lease, error) {
	resp, err := c.c.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, c.fail(ctx, "grant", err)
	}
	return hosts.Lease(resp.ID), nil
}

// Renew does what hosts.Engine says. It tries once: clientv3's KeepAliveOnce would try again and
// again without a pause while a connection is refused.
func (c *client) Renew(ctx context.Context, l hosts.Lease) error {
	mine, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewLeaseClient(c.c.ActiveConnection()).LeaseKeepAlive(mine)
	if err != nil {
		return c.fail(ctx, "renew", err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(l)}); err != nil {
		return c.fail(ctx, "renew", err)
	}
	resp, err := stream.Recv()
	if err == nil && resp.TTL <= 0 {
		err = rpctypes.ErrLeaseNotFound
	}
	return c.fail(ctx, "renew", rpctypes.Error(err))
}

// Revoke does what hosts.Engine says.
func (c *client) Revoke(ctx context.Context, l hosts.Lease) error {
	_, err := c.c.Revoke(ctx, clientv3.LeaseID(l))
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return c.fail(ctx, "revoke", err)
}

// Close ends the connection.
func (c *client) Close() error {
	c.once.Do(func() {
		c.end()
		c.err = c.c.Close()
	})
	return c.err
}
