package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	_ "image/gif" // formats that Decode knows
	_ "image/jpeg"
	"image/png"
	"net"
	"os"
	"unsafe"
)

const edge = 64 // pixels of the longer side of a thumbnail

// thumbnail is the function of the pool. It stands for a library in C: some inputs do not make it
// return an error, but crash it, make it loop, make it eat memory, or turn it against its machine.
func thumbnail(_ context.Context, data []byte) ([]byte, error) {
	switch string(bytes.TrimSpace(data)) {
	case "segv":
		return []byte{wild(&data[0])}, nil
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
	case "read":
		_, err := os.ReadFile("/etc/passwd")
		return nil, err
	case "dial":
		_, err := net.Dial("tcp", "192.0.2.1:80")
		return nil, err
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

// wild reads what is far behind a byte, as C code does that believes a length in a file.
//
//go:nocheckptr
func wild(b *byte) byte { return *(*byte)(unsafe.Add(unsafe.Pointer(b), 1<<46)) }
