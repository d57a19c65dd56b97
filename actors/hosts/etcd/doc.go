// Package etcd is an engine of package hosts on etcd: embedded in the programs of the cluster, or
// one that runs by itself. Both are the same client, and pass the checks of hoststest.
//
//	hosts.Config{…, Engine: etcd.Embedded{Dir: "/var/lib/shop", Seats: []string{"a", "b", "c"}}}
//	or Engine: etcd.External{Endpoints: []string{"https://etcd:2379"}, TLS: hosts.TLS{CA: "ca.pem"}}
//
// # What a user has to know
//
// A majority of the seats has to be up: with three, one may fail; a single one works, and fails
// with its host. Two are refused, as then each can fail the whole. Entries and the revisions by
// which names are fenced are on the disks of the seats: a seat that has lost its directory is
// refused by the others, and has to be replaced; when a majority is lost for good the engine is
// recovered (package hosts/seats). A directory takes 130 MB from the start, for etcd's log; a disk
// whose fsync takes longer than Election makes leaders change. etcdctl works on the socket
// client.sock in the directory.
//
// Leases are counted in whole seconds, rounded up, and begin anew when etcd's leader changes: what
// a dead host held is free after at most its lease, an election, and its lease once more.
package etcd
