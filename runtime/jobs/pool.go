package jobs

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// The children of a pool of jobs.
const (
	queueName   = "queue"
	workersName = "workers"
)

// Pool returns the spec of a pool of jobs: a supervisor that is called cfg.Name, over the actor
// "queue" in the master and the pool "workers", which serves the functions. It panics if cfg has a
// Worker or a Function, if a field of its own is out of range, or if the functions have names that
// cannot be called: what is wrong in the embedded Pool is an error of the start.
func Pool(cfg Config, functions ...Function) coppice.ChildSpec {
	if err := cfg.validate(functions); err != nil {
		panic(err)
	}
	cfg.PerWorker, cfg.Queue = cmp.Or(cfg.PerWorker, 1), cmp.Or(cfg.Queue, 1024)
	cfg.MaxBytes, cfg.QueueBytes = cmp.Or(cfg.MaxBytes, 64<<20), cmp.Or(cfg.QueueBytes, 1<<30)
	workers := cfg.Pool
	workers.Name = workersName
	if cfg.Fresh {
		workers.Restart, workers.Recycle.Requests = supervisor.Permanent, 1
	}
	byName := map[string]Function{}
	for _, f := range functions {
		byName[f.name] = f
	}
	workers.Worker = (&server{cfg, byName}).serve
	return coppice.Supervisor{Name: cfg.Name, Children: []coppice.ChildSpec{
		coppice.Actor{Name: queueName, New: func() actor.Actor { return newQueue(cfg) }},
		workers,
	}}
}

func (c Config) validate(functions []Function) error {
	seen := map[string]bool{}
	for _, f := range functions {
		if f.name == "" || strings.Contains(f.name, "/") || seen[f.name] {
			return fmt.Errorf("jobs: pool %q: the name of function %q is empty, has a slash or is there twice", c.Name, f.name)
		}
		seen[f.name] = true
	}
	switch {
	case len(functions) == 0:
		return fmt.Errorf("jobs: pool %q has no functions", c.Name)
	case c.Worker != nil || c.Function != "":
		return fmt.Errorf("jobs: pool %q: Worker and Function are set by this package", c.Name)
	case c.PerWorker < 0 || c.PerWorker > 4096 || c.Fresh && c.PerWorker > 1:
		return fmt.Errorf("jobs: pool %q: PerWorker %d is out of range", c.Name, c.PerWorker)
	case c.Queue < 0 || c.MaxBytes < 0 || c.QueueBytes < 0:
		return fmt.Errorf("jobs: pool %q: Queue, MaxBytes and QueueBytes are not negative", c.Name)
	}
	return nil
}
