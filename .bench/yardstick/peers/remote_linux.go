package peers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/asynkron/protoactor-go/remote"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// SumPages returns the sum of a byte a page.
func SumPages(b []byte) (sum int64) {
	for i := 0; i < len(b); i += 4096 {
		sum += int64(b[i])
	}
	return sum
}

// system is an actor system that takes messages of 64 MiB; by default gRPC refuses one above 4 MiB.
func system() (*actor.ActorSystem, *remote.Remote) {
	const most = 64 << 20
	sys := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
		return slog.New(slog.DiscardHandler)
	}))
	return sys, remote.NewRemote(sys, remote.Configure("127.0.0.1", 0,
		remote.WithServerOptions(grpc.MaxRecvMsgSize(most), grpc.MaxSendMsgSize(most)),
		remote.WithCallOptions(grpc.MaxCallRecvMsgSize(most), grpc.MaxCallSendMsgSize(most))))
}

// RemoteWorker is a process of [Remote]: an actor "worker" that answers bytes with [SumPages]; and
// "counter", which counts bytes, answers an integer with the same one, and with their number if it
// is unsigned. It prints its address, and ends when its parent has.
func RemoteWorker() error {
	sys, r := system()
	r.Start()
	n := uint64(0)
	for name, f := range map[string]actor.ReceiveFunc{
		"worker": func(c actor.Context) {
			if m, ok := c.Message().(*wrapperspb.BytesValue); ok {
				c.Respond(wrapperspb.Int64(SumPages(m.Value)))
			}
		},
		"counter": func(c actor.Context) {
			switch m := c.Message().(type) {
			case *wrapperspb.BytesValue:
				n++
			case *wrapperspb.Int64Value:
				c.Respond(m)
			case *wrapperspb.UInt64Value:
				c.Respond(wrapperspb.UInt64(n))
				n = 0
			}
		},
	} {
		if _, err := sys.Root.SpawnNamed(actor.PropsFromFunc(f), name); err != nil {
			return err
		}
	}
	fmt.Println(sys.Address())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return nil
}

// kept are the processes of Remote, whose standard input stays open as long as they are reachable.
var kept []*exec.Cmd

// Remote starts workers of protoactor's remote, each this program with the environment variable
// env, and returns what calls one. They end with this process.
func Remote(workers int, stderr io.Writer, env string) (call func(which int, b []byte) (int64, error), err error) {
	var pids []*actor.PID
	for range workers {
		cmd, addr, err := startRemote(stderr, env)
		if err != nil {
			return nil, err
		}
		kept = append(kept, cmd)
		pids = append(pids, actor.NewPID(addr, "worker"))
	}
	sys, r := system()
	r.Start()
	return func(which int, b []byte) (int64, error) {
		res, err := sys.Root.RequestFuture(pids[which%len(pids)], wrapperspb.Bytes(b), time.Minute).Result()
		if err != nil {
			return 0, err
		}
		sum, ok := res.(*wrapperspb.Int64Value)
		if !ok {
			return 0, errors.New("not a sum")
		}
		return sum.Value, nil
	}, nil
}

// startRemote starts a RemoteWorker, and returns its address.
func startRemote(stderr io.Writer, env string) (cmd *exec.Cmd, addr string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, "", err
	}
	cmd = exec.Command(exe)
	cmd.Env, cmd.Stderr = append(os.Environ(), env), stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, "", err
	}
	if _, err := cmd.StdinPipe(); err != nil {
		return nil, "", err
	}
	if err := cmd.Start(); err != nil {
		return nil, "", err
	}
	addr, err = bufio.NewReader(out).ReadString('\n')
	return cmd, strings.TrimSpace(addr), err
}

// Counter is the counter of a RemoteWorker: what tells it bytes, and what asks it an int or, with
// nil, for the number of what it was told. The caller ends cmd, by its end.
func Counter(stderr io.Writer, env string) (tell func(b []byte), ask func(v any) (any, error), cmd *exec.Cmd, end func(), err error) {
	cmd, addr, err := startRemote(stderr, env)
	if err != nil {
		return nil, nil, nil, nil, err
	}
	sys, r := system()
	r.Start()
	pid := actor.NewPID(addr, "counter")
	return func(b []byte) { sys.Root.Send(pid, wrapperspb.Bytes(b)) },
		func(v any) (any, error) {
			var q any = wrapperspb.UInt64(0)
			if n, ok := v.(int); ok {
				q = wrapperspb.Int64(int64(n))
			}
			// A PID of its own: futures that share one race for the process that it caches.
			a, err := sys.Root.RequestFuture(actor.NewPID(addr, "counter"), q, time.Minute).Result()
			switch m := a.(type) {
			case *wrapperspb.Int64Value:
				return int(m.Value), err
			case *wrapperspb.UInt64Value:
				return int(m.Value), err
			}
			return a, err
		}, cmd, func() { r.Shutdown(false) }, nil
}
