// Plain is the first step of docs/guide.md: a web service in one process.
package main

import (
	"flag"
	"fmt"
	"log"
	"net/http"
	"sync/atomic"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`")
	flag.Parse()

	var visits atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(rw, "visit", visits.Add(1))
	})
	mux.HandleFunc("GET /crash", func(http.ResponseWriter, *http.Request) {
		go panic("no recover helps here")
		select {}
	})
	log.Fatal(http.ListenAndServe(*addr, mux))
}
