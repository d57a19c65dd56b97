package fdipc

// The fall-backs, for tests.
func WithoutTable(cfg Config) Config { cfg.without |= featTable; return cfg }
func WithoutLane(cfg Config) Config  { cfg.without |= featData; return cfg }
