package runtimetest_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// exampleT stands for the t of a test: an example has none.
type exampleT struct {
	testing.TB // nil: what is not below is not used here
	ctx        context.Context
	cleanups   []func()
}

func (t *exampleT) Helper()                   {}
func (t *exampleT) Name() string              { return "Example" }
func (t *exampleT) Context() context.Context  { return t.ctx }
func (t *exampleT) Cleanup(f func())          { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Error(args ...any)         { fmt.Println(args...) }
func (t *exampleT) Errorf(f string, a ...any) { fmt.Printf(f+"\n", a...) }
func (t *exampleT) Fatal(args ...any)         { panic(fmt.Sprint(args...)) }
func (t *exampleT) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }

// test runs what stands in a function TestXxx(t *testing.T) elsewhere.
func test(f func(t testing.TB)) {
	ctx, cancel := context.WithCancel(context.Background())
	t := &exampleT{ctx: ctx}
	f(t)
	cancel()
	for _, clean := range slices.Backward(t.cleanups) {
		clean()
	}
}

// at is how a program names its points; it does nothing but in a test.
var at = func(point string) {}

// serve is a program's worker function.
func serve(ctx context.Context, w *coppice.Worker) error {
	ln, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		at("before the answer")
		fmt.Fprintf(rw, "%s from %s", w.Config(), w.Name())
	})})
}

// tree is a program's tree; its workers are goroutines here, and processes without the two fields.
func tree() coppice.Config {
	return coppice.Config{
		Logger:            slog.New(slog.DiscardHandler),
		Load:              func(context.Context) ([]byte, error) { return []byte("hello"), nil },
		ListenerIsolation: coppice.GoroutineIsolation,
		Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Size: 1, Isolation: coppice.GoroutineIsolation, Worker: serve},
		},
	}
}

// get returns the answer of a server.
func get(addr string) string {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + addr)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// A worker function runs in a test, with configuration and listeners that are real.
func ExampleWorker() {
	test(func(t testing.TB) { // func TestServe(t *testing.T)
		w := runtimetest.Worker(t, serve, coppice.Config{
			Logger: slog.New(slog.DiscardHandler),
			Load:   func(context.Context) ([]byte, error) { return []byte("hi"), nil },
		})
		fmt.Println(get(w.Addr()))
		fmt.Println(w.Stop()) // drains, and returns what serve returned
	})
	// Output:
	// hi from worker/0
	// <nil>
}

// A whole tree runs in a test, and ends with it.
func ExampleTree() {
	test(func(t testing.TB) { // func TestTree(t *testing.T)
		rt := runtimetest.Tree(t, tree()) // let it be the first line: each process runs the test so far
		fmt.Println(get(rt.Listeners()[0].Addr.String()))
	})
	// Output: hello from web/0
}

// A worker stalls at a point that the program names. Kill has its process end there.
func ExampleFaults() {
	test(func(t testing.TB) { // func TestStall(t *testing.T)
		faults := runtimetest.NewFaults(t)
		at = faults.At
		rt := runtimetest.Tree(t, tree())
		faults.Stall("before the answer")
		answer := make(chan string)
		go func() { answer <- get(rt.Listeners()[0].Addr.String()) }()
		faults.Await("before the answer")
		select {
		case <-answer:
			t.Error("it did not stall")
		default:
		}
		faults.Release("before the answer")
		fmt.Println(<-answer)
	})
	// Output: hello from web/0
}

// What a test leaves behind is named, as a failure of the test.
func ExampleLeaks() {
	test(func(t testing.TB) { // func TestNothingIsLeft(t *testing.T)
		runtimetest.Leaks(t) // first: its check is the last thing that the test does
		rt := runtimetest.Tree(t, tree())
		fmt.Println(get(rt.Listeners()[0].Addr.String()))
	})
	fmt.Println("no complaint")
	// Output:
	// hello from web/0
	// no complaint
}
