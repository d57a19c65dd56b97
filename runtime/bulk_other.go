//go:build !linux

package coppice

import "os"

func sealed(string, []byte) (*os.File, error) { return nil, errNoProcesses }

func unsealed(*os.File, int) ([]byte, error) { return nil, errNoProcesses }

func duplicate(*os.File) (*os.File, error) { return nil, errNoProcesses }
