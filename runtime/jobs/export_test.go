package jobs

// AtStep has f called by a worker at the steps of each call, with its ID: claimed, answering,
// arrived.
func AtStep(f func(step, id string)) { atStep = f }

// NewLife has f number the queues.
func NewLife(f func() int64) { newLife = f }
