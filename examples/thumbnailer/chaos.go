package main

import (
	"bytes"
	"fmt"
	"image"
	"image/png"
	"io"
	"log"
	"net/http"
	"strings"
	"sync"
)

// harm sends each bad image three times, while clients send good ones until the last bad one has
// its answer. It prints the first and last
// answers to the bad images, counts those to the good ones, and ends the
// program with an error if one of these has none.
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
	for round := range 3 {
		for _, bad := range []string{"segv", "exit", "panic", "leak", "spin", "read", "dial", "no image"} {
			answer, text := post(url, []byte(bad))
			if round != 1 { // which is as the first
				fmt.Printf("%-9s %s: %s\n", bad, answer, text)
			}
		}
	}
	close(stop)
	clients.Wait()
	http.DefaultClient.CloseIdleConnections()
	for answer, n := range answers {
		fmt.Printf("good images: %d times %s\n", n, answer)
	}
	if len(answers) != 1 || answers["200 OK"] == 0 {
		log.Fatal("bad images cost good ones their answers")
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
