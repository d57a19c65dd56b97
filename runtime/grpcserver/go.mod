// What serves gRPC, apart from the go.mod of the library, so that a program without it does not name
// gRPC.
module github.com/coppice-go/coppice/runtime/grpcserver

go 1.26.0

require (
	github.com/coppice-go/coppice/tracing/grpctrace v0.0.0
	google.golang.org/grpc v1.83.2
)

require (
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/coppice-go/coppice v0.0.0-20261130021702-a514eccb2d68 // indirect
	github.com/go-logr/logr v1.4.4 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/otel v1.47.0 // indirect
	go.opentelemetry.io/otel/log v1.47.0 // indirect
	go.opentelemetry.io/otel/metric v1.47.0 // indirect
	go.opentelemetry.io/otel/trace v1.47.0 // indirect
	golang.org/x/net v0.62.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	golang.org/x/text v0.43.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260928230214-8a89bd6388cc // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)

replace github.com/coppice-go/coppice => ../..

replace github.com/coppice-go/coppice/tracing/grpctrace => ../../tracing/grpctrace
