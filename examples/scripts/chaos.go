package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// bad are scripts with what they do.
var bad = []struct{ name, script string }{
	{"mistake", `print(1 // 0)`},
	{"loop", "while True:\n    pass"},
	{"step", `max(range(1 << 60))`}, // one step of the interpreter
	{"memory", "kept = []\nwhile True:\n    kept.append('x' * (32 << 20))"},
}

// harm has a tenant run each bad script three times, while another runs good ones until all are
// done. It prints what came of the bad scripts, and counts what came of the good ones.
func harm(url, victim, villain string) {
	stop, done, answers := make(chan struct{}), sync.WaitGroup{}, map[string]int{}
	done.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			status, text := post(url+victim, "total = 0\nfor n in range(100):\n    total += n\nprint(total)")
			answers[status+" "+text]++
		}
	})
	for range 3 {
		for _, b := range bad {
			status, text := post(url+villain, b.script)
			fmt.Printf("%s: %-8s %s: %s\n", villain, b.name, status, text)
		}
	}
	close(stop)
	done.Wait()
	for answer, n := range answers {
		fmt.Printf("%s: %d times %s\n", victim, n, answer)
	}
}

// post sends a script, and returns the status and the first line of the answer.
func post(url, script string) (status, text string) {
	resp, err := http.Post(url, "text/plain", strings.NewReader(script))
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
