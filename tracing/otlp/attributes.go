package otlp

import (
	"strings"

	"go.opentelemetry.io/otel/attribute"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
)

// This file translates attributes to OTLP's messages and back.

func resourceMessage(set *attribute.Set) *resourcepb.Resource {
	r := new(resourcepb.Resource)
	for _, kv := range set.ToSlice() {
		r.Attributes = append(r.Attributes, message(kv))
	}
	return r
}

// message returns kv as a message: numbers and booleans as such, all else as text.
func message(kv attribute.KeyValue) *commonpb.KeyValue {
	key := string(kv.Key)
	switch kv.Value.Type() {
	case attribute.INT64:
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: kv.Value.AsInt64()}}}
	case attribute.FLOAT64:
		return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_DoubleValue{DoubleValue: kv.Value.AsFloat64()}}}
	case attribute.BOOL:
		return boolean(key, kv.Value.AsBool())
	default:
		return text(key, kv.Value.String())
	}
}

// text makes value valid UTF-8, without which no message could hold it.
func text(key, value string) *commonpb.KeyValue {
	value = strings.ToValidUTF8(value, "\ufffd")
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: value}}}
}

func boolean(key string, value bool) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_BoolValue{BoolValue: value}}}
}

func messagesOf(set attribute.Set) (out []*commonpb.KeyValue) {
	for it := set.Iter(); it.Next(); {
		out = append(out, message(it.Attribute()))
	}
	return out
}

func setOf(in []*commonpb.KeyValue) attribute.Set {
	kvs := make([]attribute.KeyValue, 0, len(in))
	for _, kv := range in {
		switch v := kv.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_BoolValue:
			kvs = append(kvs, attribute.Bool(kv.GetKey(), v.BoolValue))
		case *commonpb.AnyValue_IntValue:
			kvs = append(kvs, attribute.Int64(kv.GetKey(), v.IntValue))
		case *commonpb.AnyValue_DoubleValue:
			kvs = append(kvs, attribute.Float64(kv.GetKey(), v.DoubleValue))
		default:
			kvs = append(kvs, attribute.String(kv.GetKey(), kv.GetValue().GetStringValue()))
		}
	}
	return attribute.NewSet(kvs...)
}
