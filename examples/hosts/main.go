// Hosts is a shop over three hosts. Each takes orders, and one of them has the stock: when that one
// is killed, cut off or frozen, another has it within seconds, and no order is lost or sold twice.
//
//	go -C examples/hosts run . -host a     # and b and c in terminals of their own
//	go -C examples/hosts run .             # all three
//	go -C examples/hosts run . -chaos
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	coppice "github.com/coppice-go/coppice/runtime"
)

var seats = []string{"a", "b", "c"}

var (
	host    = flag.String("host", "", "`name` of the host that runs here: a, b or c; without it all three do")
	network = flag.String("net", "127.0.0", "first three `numbers` of the addresses of the hosts")
	dir     = flag.String("dir", filepath.Join(os.TempDir(), "shop"), "`directory` of what outlives the hosts; with -chaos a new one")
	certs   = flag.String("certs", "", "`directory` of shop.pem, a.pem, a.key and so on; without it trunks are not encrypted, and loopback only")
	lease   = flag.Duration("lease", hosts.DefaultLease, "for how long a host that is not heard of keeps what it holds")
	chaos   = flag.Bool("chaos", false, "kill, cut off and freeze hosts under clients, count at them what it cost, and end")
)

func main() {
	flag.Parse()
	if *host == "" {
		launch()
		return
	}
	if !slices.Contains(seats, *host) {
		log.Fatalf("-host %s: the hosts are %v", *host, seats)
	}
	cfg := cluster(*host)
	coppice.Main(coppice.Config{
		Hosts: cfg,
		Hooks: coppice.Hooks{Started: func(*coppice.Runtime) {
			fmt.Printf("host %s: http://%s:8060/  master pid %d\n", *host, address(*host), os.Getpid())
		}},
		Children: []coppice.ChildSpec{
			cfg.Singleton(hosts.Singleton{Name: "stock"}, keepStock), // runs on one host of the three
			coppice.Pool{Name: "catalogue", Size: 1, Worker: keepCatalogue},
			coppice.Pool{Name: "web", Size: 2, Worker: serve},
		},
	})
}

// cluster says how a host finds the others, and by what they agree.
func cluster(name string) *hosts.Config {
	peers := hosts.Static{}
	for _, peer := range seats {
		peers[peer] = address(peer) + ":7400"
	}
	cfg := &hosts.Config{
		Cluster: "shop", Name: name, Listen: peers[name], Peers: peers,
		Dir:    filepath.Join(*dir, name),
		Engine: etcd.Embedded{Dir: filepath.Join(*dir, name, "engine"), Seats: seats},
		Lease:  *lease,
	}
	if *certs != "" {
		file := func(name string) string { return filepath.Join(*certs, name) }
		cfg.TLS = hosts.TLS{Cert: file(name + ".pem"), Key: file(name + ".key"), CA: file("shop.pem")}
	}
	return cfg
}

func address(name string) string { return fmt.Sprintf("%s.%d", *network, 1+slices.Index(seats, name)) }

// serve is the worker function of a process that takes orders.
func serve(ctx context.Context, w *coppice.Worker) error {
	catalogue, err := hosts.NewGroup(ctx, w.System(), "catalogue")
	if err != nil {
		return err
	}
	ln, err := w.Listen("tcp", address(*host)+":8060")
	if err != nil {
		return err
	}
	s := &shop{w.System(), catalogue}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.stock)
	mux.HandleFunc("POST /orders/{id}", s.order)
	return w.Serve(ctx, ln, &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second})
}

// shop asks the process that has the stock, and those that have the catalogue, on whichever host.
type shop struct {
	sys       *actors.System
	catalogue *hosts.Group
}

const patience = 1500 * time.Millisecond // with another host

// stock says who has the stock now.
func (s *shop) stock(rw http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	got, err := actors.Ask[state](ctx, s.sys, hosts.Lookup("stock"), look{})
	if err != nil {
		fail(rw, err)
		return
	}
	fmt.Fprintf(rw, "host %s has the stock, with fence %d: %d sold\n", got.Host, got.Fence, got.Sold)
}

var ids = regexp.MustCompile(`^[a-z0-9]{1,32}$`)

// order sells one piece. The client numbers its orders: one that has not heard what became of an
// order asks again with the same id, any host, and gets the same piece.
func (s *shop) order(rw http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if !ids.MatchString(id) {
		http.Error(rw, "an order has an id of up to 32 of a to z and 0 to 9", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	page := s.describe(ctx, "kettle")
	got, err := actors.Ask[sold](ctx, s.sys, hosts.Lookup("stock"), take{id})
	switch {
	case err != nil:
		fail(rw, err)
	case got.Why != "":
		http.Error(rw, got.Why, http.StatusServiceUnavailable)
	default:
		fmt.Fprintf(rw, "order %s: piece %d, %s; taken by host %s, sold by host %s\n", id, got.Piece, page, *host, got.Host)
	}
}

// fail answers 503 if nothing has been done, and 504 if that is not known.
func fail(rw http.ResponseWriter, err error) {
	status := http.StatusGatewayTimeout
	if errors.Is(err, actors.ErrNoActor) || errors.Is(err, actors.ErrUnavailable) {
		status = http.StatusServiceUnavailable
	}
	http.Error(rw, err.Error(), status)
}
