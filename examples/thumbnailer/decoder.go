package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	_ "image/gif" // formats that Decode knows
	_ "image/jpeg"
	"image/png"
	"os"
	"syscall"
)

const edge = 64 // pixels of the longer side of a thumbnail

// thumbnail is the function of the pool. It stands for a library in C: some inputs do not make it
// return an error, but crash it, make it loop, or make it eat memory.
func thumbnail(_ context.Context, data []byte) ([]byte, error) {
	switch string(bytes.TrimSpace(data)) {
	case "segv":
		p, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = p.Signal(syscall.SIGSEGV)
		}
		if err != nil {
			return nil, err
		}
		select {}
	case "exit":
		os.Exit(7)
	case "panic":
		var table []int
		return nil, errors.New(string(data[table[0]]))
	case "leak":
		for kept := [][]byte{}; ; {
			kept = append(kept, bytes.Repeat([]byte{1}, 8<<20))
		}
	case "spin":
		for n := 0; ; n++ {
		}
	}
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	from := img.Bounds()
	longer := max(from.Dx(), from.Dy(), 1)
	small := image.NewRGBA(image.Rect(0, 0, max(1, from.Dx()*edge/longer), max(1, from.Dy()*edge/longer)))
	for y := range small.Rect.Dy() {
		for x := range small.Rect.Dx() {
			small.Set(x, y, img.At(from.Min.X+x*from.Dx()/small.Rect.Dx(), from.Min.Y+y*from.Dy()/small.Rect.Dy()))
		}
	}
	var out bytes.Buffer
	err = png.Encode(&out, small)
	return out.Bytes(), err
}
