package otlp

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/coppice-go/coppice/tracing"
)

// newResource describes this process. The service is named by OTEL_SERVICE_NAME or
// OTEL_RESOURCE_ATTRIBUTES, else after the executable. An instance id from there names the program;
// the id of the process is appended to it. A part that cannot be read is reported and left out.
func newResource(ctx context.Context, cfg Config, p tracing.ProcessResource, pid int) *resource.Resource {
	program, err := resource.New(ctx,
		resource.WithTelemetrySDK(),
		resource.WithHost(),
		resource.WithAttributes(tracing.KeyServiceName.String(filepath.Base(os.Args[0]))),
		resource.WithFromEnv(),
		resource.WithAttributes(cfg.resource()...),
	)
	if err != nil {
		otel.Handle(fmt.Errorf("tracing/otlp: resource: %w", err))
	}

	instance := fmt.Sprintf("%s#%d", p.Name, p.Incarnation)
	if v, ok := program.Set().Value(tracing.KeyServiceInstanceID); ok {
		instance = v.AsString() + "/" + instance
	}
	attrs := []attribute.KeyValue{
		tracing.KeyServiceInstanceID.String(instance),
		tracing.KeyProcessPID.Int(pid),
		tracing.KeyActorPath.String(p.Name),
		tracing.KeyProcessID.Int(p.ID),
		tracing.KeyRole.String(p.Role),
		tracing.KeyIncarnation.Int(p.Incarnation),
		tracing.KeyGeneration.Int(p.Generation),
	}
	if p.Role == "worker" {
		attrs = append(attrs, tracing.KeySlot.Int(p.Slot))
	}
	process := resource.NewWithAttributes(tracing.SchemaURL, attrs...)
	all, err := resource.Merge(program, process)
	if err != nil { // the schema URLs differ; the attributes are merged all the same
		otel.Handle(fmt.Errorf("tracing/otlp: resource: %w", err))
	}
	return all
}
