// Package shop is the service itself: what stays as it is when its main is ported.
package shop

import (
	"context"
	"database/sql"
	"fmt"
	"log"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// orders counts by client_golang, as it always did.
var orders = promauto.NewCounter(prometheus.CounterOpts{Name: "shop_orders_total", Help: "Orders taken."})

// Migrate makes the table. It is to run once for a start of the service.
func Migrate(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, "CREATE TABLE orders")
	return err
}

// Handler takes an order by POST, and says how many there are by GET.
func Handler(db *sql.DB) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /", func(rw http.ResponseWriter, r *http.Request) {
		if _, err := db.ExecContext(r.Context(), "INSERT INTO orders"); err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		orders.Inc()
	})
	mux.HandleFunc("GET /", func(rw http.ResponseWriter, r *http.Request) {
		n, err := count(r.Context(), db)
		if err != nil {
			http.Error(rw, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprint(rw, n)
	})
	return mux
}

func count(ctx context.Context, db *sql.DB) (n int64, err error) {
	err = db.QueryRowContext(ctx, "SELECT count(*) FROM orders").Scan(&n)
	return n, err
}

// MethodCount is the method of the gRPC service.
const MethodCount = "/shop.Orders/Count"

// Register registers the gRPC service, which says how many orders there are. Yours comes from
// protoc.
func Register(s grpc.ServiceRegistrar, db *sql.DB) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.Orders", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Count", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			if err := decode(new(emptypb.Empty)); err != nil {
				return nil, err
			}
			n, err := count(ctx, db)
			return wrapperspb.Int64(n), err
		}}},
	}, nil)
}

// Report says once an hour how many orders there are, until ctx ends: work for one process only.
func Report(ctx context.Context, db *sql.DB) error {
	hour := time.NewTicker(time.Hour)
	defer hour.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hour.C:
			n, err := count(ctx, db)
			log.Print("orders: ", n, err)
		}
	}
}
