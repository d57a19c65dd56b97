//go:build !linux || (!amd64 && !arm64)

package wall

const names, arch = "", 0
