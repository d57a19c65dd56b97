// Thumbnailer makes thumbnails of images that strangers send. The decoder runs in processes of its
// own: whatever an image does to it, one request gets a 502 with the reason.
//
//	go run ./examples/thumbnailer -addr 127.0.0.1:8050
//	go run ./examples/thumbnailer -chaos
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/supervisor"
)

const maxImage = 10 << 20 // bytes of a request

func main() {
	addr := flag.String("addr", "127.0.0.1:8050", "listen `address`; port 0 picks one")
	broken := flag.Bool("chaos", false, "send good and bad images to the service, count the answers, and end")
	flag.Parse()

	often := supervisor.Intensity{Max: 250, Period: 10 * time.Second} // images may kill that many
	decoders := coppice.Pool{
		Name: "decoders", Size: 2, Spares: 1, Intensity: often,
		Recycle: coppice.Recycle{HardMemory: 256 << 20, Every: 100 * time.Millisecond},
		Environment: coppice.Environment{Sandbox: coppice.Sandbox{
			NoFiles: true, NoTCP: true, NoCapabilities: true, Scoped: true, Syscalls: "compute",
			BestEffort: true, // older kernels lack some
		}},
	}
	coppice.Main(coppice.Config{
		Intensity: often,
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := "http://" + rt.Listeners()[0].Addr.String() + "/"
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(url) })
			}
		}},
		Children: []coppice.ChildSpec{
			jobs.Pool(jobs.Config{Pool: decoders, Defaults: jobs.Options{Timeout: time.Second, Grace: time.Second / 5}},
				jobs.Handle("thumbnail", thumbnail)),
			coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", *addr)
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: handler(w)})
			}},
		},
	})
}

// handler answers an image with its thumbnail.
func handler(w *coppice.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		image, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, maxImage))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		sum := sha256.Sum256(image)
		call := jobs.Start[[]byte](r.Context(), w, "decoders/thumbnail", image, jobs.Options{Key: hex.EncodeToString(sum[:8])})
		png, err := call.Wait()
		if err != nil {
			http.Error(rw, err.Error(), status(err))
			return
		}
		rw.Header().Set("Content-Type", "image/png")
		_, _ = rw.Write(png) // an error is a client that left
	})
}

// status returns 422 if the decoder refuses the image, 502 if the decoder failed, and 503 if the
// same request may succeed later.
func status(err error) int {
	if _, ok := errors.AsType[*jobs.FuncError](err); ok {
		return http.StatusUnprocessableEntity
	}
	if _, ok := errors.AsType[*jobs.FullError](err); ok {
		return http.StatusServiceUnavailable
	}
	return http.StatusBadGateway
}
