package actors

// Made says whether protoactor's system exists.
func Made(s *System) bool { return s.made() != nil }
