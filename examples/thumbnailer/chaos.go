package main

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"io"
	"net/http"
	"strings"
	"sync"
)

// harm sends each bad image three times, while clients send good ones until the last bad one has
// its answer. It prints the answers to the bad images, and counts those to the good ones.
func harm(url string) {
	var good bytes.Buffer
	_ = png.Encode(&good, image.NewGray(image.Rect(0, 0, 640, 480))) // a buffer has room
	stop, answers, clients := make(chan struct{}), map[string]int{}, sync.WaitGroup{}
	var mu sync.Mutex
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				answer, text := post(url, good.Bytes())
				if answer != "200 OK" {
					answer += ": " + text
				}
				mu.Lock()
				answers[answer]++
				mu.Unlock()
			}
		})
	}
	for range 3 {
		for _, bad := range []string{"segv", "exit", "panic", "leak", "spin", "no image"} {
			answer, text := post(url, []byte(bad))
			fmt.Printf("%-9s %s: %s\n", bad, answer, text)
		}
	}
	close(stop)
	clients.Wait()
	for answer, n := range answers {
		fmt.Printf("good images: %d times %s\n", n, answer)
	}
}

// post sends an image, and returns the status and the first line of the answer.
func post(url string, image []byte) (status, text string) {
	resp, err := http.Post(url, "application/octet-stream", bytes.NewReader(image))
	if err != nil {
		return "no answer", err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "no answer", err.Error()
	}
	text, _, _ = strings.Cut(string(b), "\n")
	return resp.Status, text
}
