package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
	"github.com/pires/go-proxyproto"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

const websockets = 20

// client is one of a balancer's, with its own address.
type client struct {
	gateway, from string // from "": no header
}

// dial connects as the balancer does for it, with TLS for a name.
func (c client) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", c.gateway)
	if err != nil {
		return nil, err
	}
	if c.from != "" {
		to, _ := net.ResolveTCPAddr("tcp", "198.51.100.7:443")
		source, err := net.ResolveTCPAddr("tcp", c.from+":1000")
		if err != nil {
			return nil, err
		}
		if _, err := proxyproto.HeaderProxyFromAddrs(2, source, to).WriteTo(raw); err != nil {
			return nil, err
		}
	}
	name, _, _ := strings.Cut(addr, ":")
	conn := tls.Client(raw, &tls.Config{ServerName: name, InsecureSkipVerify: true}) //nolint:gosec // the certificates are made for this
	return conn, conn.HandshakeContext(ctx)
}

func (c client) http() *http.Client {
	return &http.Client{Transport: &http.Transport{DialTLSContext: c.dial, DisableKeepAlives: true}}
}

// get returns the first line of a page, or why there is none.
func (c client) get(url string) (string, error) {
	return chaos.Get(context.Background(), c.http(), url)
}

// counts is what clients of HTTP saw, and those of websockets.
type counts struct{ answered, failed, cut atomic.Int64 }

// harm asks what is answered and what is not, and kills and reloads the workers under clients. It
// prints what these counted, and ends the program with an error if it is more than it may be.
func harm(rt *coppice.Runtime, gateway string) {
	good := client{gateway: gateway, from: "192.0.2.1"}
	page, err := good.get("https://shop.example/")
	fmt.Println("a client:", page)
	if !strings.HasSuffix(page, " serves 192.0.2.1:1000") {
		log.Fatal("its address is lost: ", err)
	}
	_, err = good.get("https://other.example/")
	fmt.Printf("a name without a certificate: %v\n", err)
	_, none := client{gateway: gateway}.get("https://shop.example/")
	fmt.Printf("no header of a balancer: %v\n", none)
	if err == nil || none == nil {
		log.Fatal("one of these is served")
	}

	ctx, stop := context.WithCancel(context.Background())
	var n counts
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	for i := range 4 {
		c := client{gateway: gateway, from: fmt.Sprintf("192.0.2.%d", 10+i)}
		running.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.get("https://shop.example/"); err == nil {
					n.answered.Add(1)
				} else {
					n.failed.Add(1)
					log.Print(err)
				}
			}
		})
	}
	var heard [websockets]atomic.Int64 // when each heard its echo
	for i := range websockets {
		c := client{gateway: gateway, from: fmt.Sprintf("192.0.2.%d", 100+i)}
		running.Go(func() {
			for ctx.Err() == nil {
				err := c.talk(ctx, &heard[i])
				if ctx.Err() == nil {
					n.cut.Add(1)
					log.Print(err)
				}
			}
		})
	}
	report := func(what string, mayFail int64) {
		now, before := time.Now().UnixNano(), n.answered.Load()
		chaos.Eventually("have requests answered, and all websockets heard", func() bool {
			all := n.answered.Load() > before
			for i := range heard {
				all = all && heard[i].Load() > now
			}
			return all
		})
		answered, failed, cut := n.answered.Swap(0), n.failed.Swap(0), n.cut.Swap(0)
		fmt.Printf("%s: %d requests answered, %d failed; of %d websockets %d cut\n", what, answered, failed, websockets, cut)
		if failed > mayFail || cut > websockets {
			log.Fatal("too much is lost")
		}
	}
	report("the start", 0)
	chaos.Kill(rt, "web/0")
	report("kill -9 of web/0", 4) // each client of HTTP has one request under way
	chaos.Reload(rt)
	chaos.Eventually("have the drains end", func() bool { return n.cut.Load() >= websockets })
	report("a reload", 0)
}

// talk opens a websocket and sends to it until it ends.
func (c client) talk(ctx context.Context, heard *atomic.Int64) error {
	conn, _, err := websocket.Dial(ctx, "wss://chat.example/echo", &websocket.DialOptions{HTTPClient: c.http()})
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseNow() }()
	for {
		if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			return err
		}
		if _, _, err := conn.Read(ctx); err != nil {
			return err
		}
		heard.Store(time.Now().UnixNano())
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
