package etcd

import "go.etcd.io/etcd/server/v3/storage/wal"

// Quick has a member of a test neither reserve 64 MB for its log nor wait for the disk.
func (x Embedded) Quick() Embedded {
	wal.SegmentSizeBytes = 1 << 20
	x.noSync = true
	return x
}
