package group

import (
	"cmp"
	"hash/fnv"
	"slices"
	"strings"
)

// A Hashed is what Hash has made of a key, and of a member.
type Hashed uint64

// Hash returns the hash of a key. It is a part of the protocol, as Weight is: all hosts of a
// cluster, of two releases too, must agree.
func Hash(key string) Hashed {
	h := fnv.New64a()
	_, _ = h.Write([]byte(key))
	return Hashed(mix(h.Sum64()))
}

// HashMember returns the hash of a member, by the names of its host and its own. Its process and
// its actor are not in it: who comes in its place has its keys.
func HashMember(host, name string) Hashed { return Hash(host + "/" + name) }

// Weight returns how much a member is to have a key; of several that with the highest has it
// (rendezvous hashing).
func Weight(member, key Hashed) uint64 { return mix(uint64(member) ^ uint64(key)*0x9e3779b97f4a7c15) }

// mix is the finaliser of splitmix64: FNV-1a alone gives names that are alike weights that are.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Rank sorts members by their weights for a key, the highest first. of and name return the hash of
// a member, and what decides between equal weights.
func Rank[M any](members []M, key Hashed, of func(M) Hashed, name func(M) string) {
	slices.SortFunc(members, func(a, b M) int {
		return cmp.Or(cmp.Compare(Weight(of(b), key), Weight(of(a), key)), strings.Compare(name(a), name(b)))
	})
}
