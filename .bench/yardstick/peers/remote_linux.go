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

// RemoteWorker is a process of [Remote]: an actor "worker" that answers bytes with [SumPages]. It
// prints its address, and ends when its parent has.
func RemoteWorker() error {
	sys, r := system()
	r.Start()
	_, err := sys.Root.SpawnNamed(actor.PropsFromFunc(func(c actor.Context) {
		if m, ok := c.Message().(*wrapperspb.BytesValue); ok {
			c.Respond(wrapperspb.Int64(SumPages(m.Value)))
		}
	}), "worker")
	if err != nil {
		return err
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
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var pids []*actor.PID
	for range workers {
		cmd := exec.Command(exe)
		cmd.Env, cmd.Stderr = append(os.Environ(), env), stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if _, err := cmd.StdinPipe(); err != nil {
			return nil, err
		}
		kept = append(kept, cmd)
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		addr, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			return nil, err
		}
		pids = append(pids, actor.NewPID(strings.TrimSpace(addr), "worker"))
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
