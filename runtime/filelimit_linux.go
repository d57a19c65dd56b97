package coppice

import "github.com/coppice-go/coppice/runtime/internal/process"

func fileLimit() int { return process.FileLimit() }
