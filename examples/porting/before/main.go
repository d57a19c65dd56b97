// Before is a service as many are: cobra, TLS, gRPC, Prometheus, database/sql, signals, an
// errgroup.
package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if root.ExecuteContext(ctx) != nil {
		os.Exit(1)
	}
}

func (o options) serve(ctx context.Context) error {
	db, err := sql.Open("orders", o.database)
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(40)
	if err := shop.Migrate(ctx, db); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(o.cert, o.cert)
	if err != nil {
		return err
	}
	web := &http.Server{Handler: shop.Handler(db), TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
	rpc := grpc.NewServer()
	shop.Register(rpc, db)
	metrics := &http.Server{Addr: o.metrics, Handler: promhttp.Handler()}
	webLn, err := net.Listen("tcp", o.https)
	if err != nil {
		return err
	}
	rpcLn, err := net.Listen("tcp", o.grpc)
	if err != nil {
		return err
	}
	fmt.Println("serving")

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return served(web.ServeTLS(webLn, "", "")) })
	g.Go(func() error { return rpc.Serve(rpcLn) })
	g.Go(func() error { return served(metrics.ListenAndServe()) })
	g.Go(func() error { return shop.Report(ctx, db) })
	g.Go(func() error {
		<-ctx.Done()
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		rpc.GracefulStop()
		return errors.Join(web.Shutdown(late), metrics.Shutdown(late))
	})
	return g.Wait()
}

func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
