package etcd

import (
	"context"
	"errors"
	"io"
	"os"

	"go.etcd.io/etcd/server/v3/storage/wal"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/seats"
)

// Quick has a member of a test neither reserve 64 MB for its log nor wait for the disk.
func (x Embedded) Quick() Embedded {
	wal.SegmentSizeBytes = 1 << 20
	x.noSync = true
	return x
}

// Start starts a member that has no peers in this process. stop ends it.
func (x Embedded) Start(host string) (stop func() error, err error) {
	how, err := x.prepare(context.Background(), host)
	if err != nil {
		return nil, err
	}
	m, err := x.start(host, how)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	return func() error { cancel(); return <-ended }, nil
}

// Snapshot writes what etcdctl snapshot save would.
func Snapshot(ctx context.Context, e hosts.Engine, file string) error {
	r, err := e.(*client).c.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// Interrupted does a recovery up to the point where the former state has been moved away.
func (x Embedded) Interrupted(host string) error {
	return errors.Join(x.restore(host, x.path(seats.Recovering)), x.moveAway())
}
