package runtimetest_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestWorkerEnds: the test learns how a worker function ends.
func TestWorkerEnds(t *testing.T) {
	for want, fn := range map[string]coppice.WorkerFunc{
		"no such database":       func(context.Context, *coppice.Worker) error { return errors.New("no such database") },
		"panic: boom":            func(context.Context, *coppice.Worker) error { panic("boom") },
		"it ended its goroutine": func(context.Context, *coppice.Worker) error { runtime.Goexit(); return nil },
		"canceled, by the worker's end": func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return errors.New("canceled, by the worker's end")
		},
	} {
		t.Run(want, func(t *testing.T) {
			w := runtimetest.Worker(t, fn, coppice.Config{})
			if err := w.Stop(); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestWorkerMethods calls each exported method of a Worker of the kit, and of the zero Worker: none
// panics, and those that cannot do what they say return an error.
func TestWorkerMethods(t *testing.T) {
	t.Run("zero", func(t *testing.T) {
		refused := callEachMethod(t, t.Context(), new(coppice.Worker))
		if want := []string{"AwaitListener", "AwaitPacketConn", "File", "Listener", "PacketConn", "Tree", "ServeTLS"}; !slices.Equal(refused, want) {
			t.Errorf("refused %q, want %q", refused, want)
		}
	})
	t.Run("kit", func(t *testing.T) {
		w := runtimetest.Worker(t, func(ctx context.Context, w *coppice.Worker) error {
			refused := callEachMethod(t, ctx, w)
			if want := []string{"AwaitPacketConn", "File", "PacketConn", "ServeTLS"}; !slices.Equal(refused, want) { // there are none of these
				t.Errorf("refused %q, want %q", refused, want)
			}
			return w.Ready()
		}, coppice.Config{
			Load:     func(context.Context) ([]byte, error) { return []byte("configuration"), nil },
			Children: []coppice.ChildSpec{coppice.ListenerSpec{Name: "named", Network: "tcp", Address: "127.0.0.1:0"}},
		})
		if err := w.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// callEachMethod returns the methods that returned an error.
func callEachMethod(t *testing.T, ctx context.Context, w *coppice.Worker) (refused []string) {
	ended, end := context.WithCancel(ctx)
	end()
	v := reflect.ValueOf(w)
	var names []string
	for i := range v.NumMethod() {
		names = append(names, v.Type().Method(i).Name)
	}
	slices.SortStableFunc(names, func(a, b string) int { // after Serve the worker listens no more
		return strings.Count(a, "Serve") - strings.Count(b, "Serve")
	})
	for _, name := range names {
		method := v.MethodByName(name)
		network := "tcp"
		if strings.Contains(name, "Packet") {
			network = "udp"
		}
		texts := []string{network, "127.0.0.1:0"}
		var in []reflect.Value
		for j := range method.Type().NumIn() {
			var arg any
			switch typ := method.Type().In(j); typ {
			case reflect.TypeFor[context.Context]():
				arg = ctx
				if strings.HasPrefix(name, "Serve") || name == "AwaitPacketConn" { // would wait
					arg = ended
				}
			case reflect.TypeFor[net.Listener]():
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Error(err)
					return nil
				}
				defer ln.Close()
				arg = ln
			case reflect.TypeFor[coppice.Server](), reflect.TypeFor[*http.Server]():
				arg = new(http.Server)
			case reflect.TypeFor[*tls.Config]():
				arg = new(tls.Config)
			case reflect.TypeFor[coppice.ListenerSpec]():
				arg = coppice.ListenerSpec{Name: name, Network: network, Address: "127.0.0.1:0"}
			case reflect.TypeFor[int]():
				arg = 1
			case reflect.TypeFor[string]():
				if arg = "named"; !strings.Contains(name, "Listener") && name != "PacketConn" {
					arg, texts = texts[0], texts[1:]
				}
			default:
				t.Errorf("%s takes a %v: give it one", name, typ)
				return nil
			}
			in = append(in, reflect.ValueOf(arg))
		}
		for _, o := range method.Call(in) {
			switch o := o.Interface().(type) {
			case error:
				t.Logf("%s: %v", name, o)
				refused = append(refused, name)
			case interface{ Close() error }:
				if !reflect.ValueOf(o).IsNil() {
					o.Close()
				}
			}
		}
	}
	return refused
}
