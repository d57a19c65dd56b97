package main

import (
	"bytes"
	"image"
	"image/png"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestBadImages: each bad image has an answer with the reason, good ones between them are answered,
// the third request with what killed twice is refused, and another image that crashes is not.
func TestBadImages(t *testing.T) {
	if testing.Short() {
		t.Skip("a race build needs its dynamic loader, which the walls keep away")
	}
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0")
	url := p.Await(`^(http://\S+/)`)[1]
	var good bytes.Buffer
	if err := png.Encode(&good, image.NewGray(image.Rect(0, 0, 640, 480))); err != nil {
		t.Fatal(err)
	}
	rows := []struct{ image, want string }{
		{"segv", "502 Bad Gateway: jobs: worker decoders/workers/"},
		{"segv", "SIGSEGV"},
		{"segv", "is quarantined, for 2 deaths, the last: "},
		{"exit", "died with the call: exit code 7"},
		{"panic", "502 Bad Gateway: jobs: panic: runtime error: index out of range"},
		{"dial", "SIGSYS: bad system call: socket"},
		{"no image", "422 Unprocessable Entity: image: unknown format"},
	}
	for _, row := range rows {
		status, text := post(url, []byte(row.image))
		if got := status + ": " + text; !strings.Contains(got, row.want) {
			t.Errorf("%s: %s, want %q", row.image, got, row.want)
		}
		if status, text := post(url, good.Bytes()); status != "200 OK" {
			t.Errorf("a good image after %s: %s: %s", row.image, status, text)
		}
	}
	resp, err := http.Post(url, "image/png", &good)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if img, err := png.Decode(resp.Body); err != nil || img.Bounds().Max != image.Pt(64, 48) {
		t.Error(img, err)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestChaos: the program survives what it sends itself.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes four seconds")
	}
	examplestest.Chaos(t, "-addr", "127.0.0.1:0")
}
