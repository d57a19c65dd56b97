package main

import (
	"fmt"
	"io"
	"log"
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
	{"load", `load("/etc/passwd", "root")`},
}

// harm has a tenant run each bad script three times, while another runs good ones until all are
// done. It prints what came of the bad scripts the first and the last time, counts what came of the
// good ones, and ends the program with an error if one of these had no answer.
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
	for round := range 3 {
		for _, b := range bad {
			status, text := post(url+villain, b.script)
			if round != 1 { // which is as the first
				fmt.Printf("%s %-8s %s: %s\n", villain, b.name, status, text)
			}
		}
	}
	close(stop)
	done.Wait()
	http.DefaultClient.CloseIdleConnections()
	for answer, n := range answers {
		fmt.Printf("%s %d times %s\n", victim, n, answer)
	}
	if len(answers) != 1 || answers["200 OK 4950"] == 0 {
		log.Fatal("bad scripts cost good ones their answers")
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
