package process

import "time"

// Zombie is a child of this program that has ended and is not reaped. Its number and its start
// time, in the kernel's ticks, identify one process for ever.
type Zombie struct {
	PID   int
	Start uint64
}

// strangers decides which zombies are reaped: zombies that have stayed so for the grace. It is
// pure: step gets the zombies and the time.
type strangers struct {
	grace time.Duration
	seen  map[Zombie]time.Time // when it was seen first
}

// step takes all present zombies. It returns the zombies to reap now, in the order in which it
// first saw them, and when to look again; zero if none waits. It returns a ripe zombie again until
// that is gone.
func (s *strangers) step(now time.Time, zombies []Zombie) (ripe []Zombie, next time.Time) {
	seen := make(map[Zombie]time.Time, len(zombies))
	for _, z := range zombies {
		first, ok := s.seen[z]
		if !ok {
			first = now
		}
		seen[z] = first
		due := first.Add(s.grace)
		if !due.After(now) {
			ripe = append(ripe, z)
			due = now.Add(s.grace) // if it cannot be reaped
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	s.seen = seen
	return ripe, next
}
