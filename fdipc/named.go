package fdipc

// Credentials are those of the process at the other end of a named socket, as the kernel vouches for them.
type Credentials struct{ PID, UID, GID int }
