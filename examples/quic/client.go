package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/quic-go/quic-go/http3"
)

// get is a client, for want of one on most machines: it keeps a connection, says hello
// at each interval, and prints what it hears.
func get(url string, n int, interval time.Duration) error {
	tr := newTransport()
	defer tr.Close()
	client := http.Client{Transport: tr}
	for i := range n {
		if i > 0 {
			<-time.After(interval)
		}
		resp, err := client.Post(url, "text/plain", strings.NewReader("hello\n"))
		if err != nil {
			fmt.Println(err)
			continue
		}
		_, err = io.Copy(os.Stdout, resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// newTransport returns a client's side. Give requests a deadline: one that a killed worker had
// acknowledged is not answered, and no reset ends it.
func newTransport() *http3.Transport {
	return &http3.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} // the certificate is made at each start
}
