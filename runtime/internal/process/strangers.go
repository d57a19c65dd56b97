package process

import "time"

// Zombie is a child of this program that has ended and is not reaped. Its number
// and the time of its start, in the kernel's ticks, name one process for good.
type Zombie struct {
	PID   int
	Start uint64
}

// strangers decides which zombies are reaped: those that have stayed zombies for the grace. It is
// pure: the zombies and the time come in.
type strangers struct {
	grace time.Duration
	seen  map[Zombie]time.Time // when first
}

// step takes all present zombies. It returns those to reap now, in the order in which they were
// first seen, and when to look again; zero when none waits.
// What is ripe is returned again until it is gone.
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
			due = now.Add(s.grace) // when it could not be reaped
		}
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	s.seen = seen
	return ripe, next
}
