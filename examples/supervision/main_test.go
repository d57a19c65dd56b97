package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
)

// TestStory runs the program and looks for what it must tell, in this order.
func TestStory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	if err := run(ctx, &out, false); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	rest := out.String()
	for _, want := range []string{
		"shop/stock#1 exited: error: no connection\n",
		"shop/stock#1 restarting: attempt 1, 4 of 5 left, at once\n",
		"shop/mail/queue#1 stopped: shutdown\n",
		"shop/counter#1 stopped: shutdown\n",
		"shop/stock#2 started\n",
		"shop/counter#2 exited: panic: ",
		"shop/counter#2 restarting: attempt 1, 3 of 5 left, at once\n",
		"shop/mail/report#1 exited: normal\n",
		"shop/mail/queue#1 exited: panic: index out of range\n",
		"shop/mail/queue#1 restarting: attempt 1, 1 of 2 left, in 20ms\n",
		"shop/mail/queue#2 restarting: attempt ",
		"shop/mail gave up: more than 2 restarts in 1m0s",
		"shop/mail#3 exited: gave up",
		"shop/mail#3 restarting: attempt ",
		"shop/mail#4 started\n",
		"shop down: shutdown\n",
	} {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Fatalf("not told, or not in this order: %q\n%s", want, &out)
		}
		rest = after
	}
}

func TestExplain(t *testing.T) {
	var out bytes.Buffer
	if err := run(t.Context(), &out, true); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "shop running, rest_for_one, 5 of 5 restarts left\n├── stock#1 running, permanent\n") {
		t.Errorf("%s", &out)
	}
}
