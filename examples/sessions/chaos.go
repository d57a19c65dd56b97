package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const (
	clients = 8
	keys    = 5 // sessions of a client
)

// harm has clients write their sessions and read them back, of whichever worker answers, kills each
// worker in turn, and reloads the tree. It ends the program with an error if a session is lost or
// older than it was.
func harm(rt *coppice.Runtime, url string) {
	crowd := chaos.NewCrowd("sessions read as they were written", "lost", "requests cut and made again")
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // each request to the next worker
	for i := range clients {
		n, has := 0, [keys]string{}
		crowd.Add(func(ctx context.Context) (string, error) {
			key := n % keys
			page, text := fmt.Sprintf("%ss/%d-%d", url, i, key), fmt.Sprint("version ", n)
			if has[key] != "" {
				read, err := chaos.Get(ctx, client, page)
				switch {
				case err == nil && (read == has[key] || read == text): // it has that from a write that was cut
				case err == nil, strings.HasPrefix(err.Error(), "404 "):
					log.Printf("%s is %q, %v; want %q", page, read, err, has[key])
					return "lost", nil
				default:
					log.Print(err)
					return "requests cut and made again", nil
				}
			}
			r, err := http.NewRequestWithContext(ctx, http.MethodPut, page, strings.NewReader(text))
			if err != nil {
				return "", err
			}
			resp, err := client.Do(r)
			if err != nil {
				log.Print(err)
				return "requests cut and made again", nil
			}
			resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return "", fmt.Errorf("%s: %s", page, resp.Status)
			}
			n, has[key] = n+1, text
			return "sessions read as they were written", nil
		})
	}
	crowd.After("the start", map[string]int{"lost": 0})
	for _, name := range chaos.Workers(rt, "web") {
		chaos.Kill(rt, name)
		crowd.After("kill -9 of "+name, map[string]int{"lost": 0})
	}
	chaos.Reload(rt)
	crowd.After("a reload", map[string]int{"lost": 0})
	crowd.Stop()
}
