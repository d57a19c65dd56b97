package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strconv"
	"strings"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const numbers = 200

// harm gives the service jobs, kills a worker again and again meanwhile, and reloads. It prints
// what became of the jobs, and ends the program with an error if one is lost or ends as it must
// not.
func harm(rt *coppice.Runtime, url string) {
	defer http.DefaultClient.CloseIdleConnections()
	inputs, ids := []string{"flaky", "poison", "endless", "no number"}, map[string]string{}
	for n := range numbers {
		inputs = append(inputs, strconv.Itoa(n))
	}
	for i, input := range inputs {
		if i%100 == 50 {
			chaos.Kill(rt, "work/workers/0")
		}
		if i == 100 {
			reload(rt)
		}
		fields := strings.Fields(ask(http.Post(url+"jobs", "text/plain", strings.NewReader(input))))
		ids[input] = fields[1] // job 7 waits …
	}
	chaos.Eventually("have all jobs end", func() bool { return strings.HasPrefix(ask(http.Get(url+"jobs")), "0 wait") })
	for _, input := range inputs[:len(inputs)-numbers] {
		_, became, _ := strings.Cut(ask(http.Get(url+"jobs/"+ids[input])), ids[input]+" ")
		fmt.Printf("%-9s %s\n", input, became)
	}
	good, again := 0, 0
	for n := range numbers {
		became := ask(http.Get(url + "jobs/" + ids[strconv.Itoa(n)]))
		if strings.HasSuffix(became, fmt.Sprintf(": %d", n*n)) {
			good++
		}
		if !strings.Contains(became, "attempts 1:") {
			again++
		}
	}
	fmt.Printf("numbers: %d of %d done, %d of them after a kill -9 of their worker\n", good, numbers, again)
	if good < numbers {
		log.Fatal("jobs are lost")
	}
}

// reload reloads the tree. A new worker that a bad job kills counts against the release, as any
// that ends during a reload: then it is tried again.
func reload(rt *coppice.Runtime) {
	chaos.Eventually("reload", func() bool { return rt.Reload(context.Background()) == nil })
}

// ask returns the text of an answer.
func ask(resp *http.Response, err error) string {
	if err != nil {
		log.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		log.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}
