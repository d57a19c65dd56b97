package rules

import "math/bits"

// Order keeps the children in start order and finds neighbours in it in O(log n): a position is
// handed out at the end and never moves, but for compaction, which happens only between operations.
type Order struct {
	Keys    []Key // position -> child; zero: free
	Present Bitset
	Active  Bitset // positions of children whose Phase is not Down
	Count   int
}

func (o *Order) append(k Key) int {
	p := len(o.Keys)
	o.Keys = append(o.Keys, k)
	o.Present.set(p)
	o.Count++
	return p
}

func (o *Order) remove(p int) {
	o.Keys[p] = 0
	o.Present.clear(p)
	o.Active.clear(p)
	o.Count--
}

// sparse reports whether most positions are free.
func (o *Order) sparse() bool { return len(o.Keys) > 2*o.Count+64 }

// Bitset is a set of small integers as a tree of words: bit i of level l+1 is set
// if word i of level l is not zero. Finding a neighbour costs two
// instructions a level, and a level is 64 times shorter than the one below.
type Bitset [][]uint64

func (b *Bitset) set(i int) {
	for l := 0; ; l++ {
		if l == len(*b) {
			*b = append(*b, nil)
		}
		w := i >> 6
		for len((*b)[l]) <= w {
			(*b)[l] = append((*b)[l], 0)
		}
		(*b)[l][w] |= 1 << (i & 63)
		// The root is one word; a level above it is made when it outgrows that.
		if len((*b)[l]) == 1 && l == len(*b)-1 {
			return
		}
		if l == len(*b)-1 {
			b.grow(l)
		}
		i = w
	}
}

// grow makes the level above l from what level l holds.
func (b *Bitset) grow(l int) {
	up := make([]uint64, (len((*b)[l])+63)>>6)
	for w, word := range (*b)[l] {
		if word != 0 {
			up[w>>6] |= 1 << (w & 63)
		}
	}
	*b = append(*b, up)
}

func (b Bitset) clear(i int) {
	for l := range b {
		w := i >> 6
		if w >= len(b[l]) {
			return
		}
		b[l][w] &^= 1 << (i & 63)
		if b[l][w] != 0 {
			return
		}
		i = w
	}
}

// next returns the smallest member that is at least i, or -1.
func (b Bitset) next(i int) int {
	for l := 0; l < len(b); l++ {
		if w := i >> 6; w < len(b[l]) {
			if word := b[l][w] >> (i & 63); word != 0 {
				i += bits.TrailingZeros64(word)
				for ; l > 0; l-- {
					i = i<<6 + bits.TrailingZeros64(b[l-1][i])
				}
				return i
			}
		}
		i = i>>6 + 1
	}
	return -1
}

// prev returns the largest member that is at most i, or -1.
func (b Bitset) prev(i int) int {
	for l := 0; l < len(b) && i >= 0; l++ {
		w := i >> 6
		if w >= len(b[l]) {
			w, i = len(b[l])-1, len(b[l])<<6-1
		}
		if word := b[l][w] << (63 - i&63); word != 0 {
			i -= bits.LeadingZeros64(word)
			for ; l > 0; l-- {
				i = i<<6 + 63 - bits.LeadingZeros64(b[l-1][i])
			}
			return i
		}
		i = w - 1
	}
	return -1
}
