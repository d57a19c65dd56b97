package etcd

import (
	"context"

	"go.etcd.io/etcd/server/v3/storage/wal"
)

// Quick has a member of a test neither reserve 64 MB for its log nor wait for the disk.
func (x Embedded) Quick() Embedded {
	wal.SegmentSizeBytes = 1 << 20
	x.noSync = true
	return x
}

// Start starts a member that has no peers in this process. stop ends it.
func (x Embedded) Start(host string) (stop func() error, err error) {
	m, err := x.start(host)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.run(ctx) }()
	return func() error { cancel(); return <-ended }, nil
}
