// After is the service of before in supervised processes.
package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"fmt"
	"net/http"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/credentials/insecure"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/grpcserver"
	"github.com/coppice-go/coppice/tracing/otlp"

	"github.com/coppice-go/coppice/examples/porting/shop"
)

type options struct{ https, grpc, metrics, cert, database string }

func main() {
	var o options
	root := &cobra.Command{Use: "shop", SilenceUsage: true}
	serve := &cobra.Command{Use: "serve", RunE: func(cmd *cobra.Command, _ []string) error { return o.serve(cmd.Context()) }}
	serve.Flags().StringVar(&o.https, "https", ":8443", "address")
	serve.Flags().StringVar(&o.grpc, "grpc", ":9000", "address")
	serve.Flags().StringVar(&o.metrics, "metrics", ":9090", "address")
	serve.Flags().StringVar(&o.cert, "cert", "cert.pem", "certificate and key, one file")
	serve.Flags().StringVar(&o.database, "database", "orders", "database")
	root.AddCommand(serve)
	if root.ExecuteContext(context.Background()) != nil {
		os.Exit(1)
	}
}

// serve runs in each process, with the arguments of the first: a worker goes no further than Run.
func (o options) serve(ctx context.Context) error {
	if err := otlp.Use(otlp.Config{Metrics: "prometheus", Producers: "prometheus"}); err != nil {
		return err
	}
	if !coppice.IsChild() {
		if err := o.migrate(ctx); err != nil {
			return err
		}
	}
	return coppice.Run(ctx, coppice.Config{
		Service: coppice.Service{Signals: true, Notify: true},
		Load:    func(context.Context) ([]byte, error) { return os.ReadFile(o.cert) }, // at each reload
		Hooks:   coppice.Hooks{Started: func(*coppice.Runtime) { fmt.Println("serving") }},
		Children: []coppice.ChildSpec{
			coppice.Func{Name: "metrics", Run: o.serveMetrics},
			coppice.Pool{Name: "shop", Size: 4, Worker: o.work},
			coppice.Pool{Name: "report", Size: 1, Worker: o.report},
		},
	})
}

func (o options) migrate(ctx context.Context) error {
	db, err := sql.Open("orders", o.database)
	if err != nil {
		return err
	}
	defer db.Close()
	return shop.Migrate(ctx, db)
}

// work is the worker function: HTTPS and gRPC.
func (o options) work(ctx context.Context, w *coppice.Worker) error {
	db, err := sql.Open("orders", o.database)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(40 / 4) // of each worker
	pair, err := tls.X509KeyPair(w.Config(), w.Config())
	if err != nil {
		return err
	}
	web := &http.Server{Handler: shop.Handler(db), TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
	rpc := grpcserver.New(insecure.NewCredentials())
	shop.Register(rpc, db)
	webLn, err := w.Listen("tcp", o.https)
	if err != nil {
		return err
	}
	rpcLn, err := w.Listen("tcp", o.grpc)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return w.ServeTLS(ctx, webLn, web) })
	g.Go(func() error { return w.Serve(ctx, rpcLn, rpc) })
	return g.Wait()
}

// report is the work that one process does for all.
func (o options) report(ctx context.Context, w *coppice.Worker) error {
	db, err := sql.Open("orders", o.database)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := w.Ready(); err != nil {
		return err
	}
	return shop.Report(ctx, db)
}

// serveMetrics serves the metrics of all processes, in the master.
func (o options) serveMetrics(ctx context.Context) error {
	s := &http.Server{Addr: o.metrics, Handler: otlp.PrometheusHandler()}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.ListenAndServe(); ctx.Err() == nil {
		return err
	}
	return nil // an error here would be one of the log's at each stop
}
