//go:build race

package runtimetest_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// racyVar lets TestUserRacy run: it fails.
const racyVar = "COPPICE_TEST_RACY"

func TestUserRacy(t *testing.T) {
	if os.Getenv(racyVar) == "" {
		t.Skip("is for TestRacyByGoTest")
	}
	runtimetest.Tree(t, coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: racy}}})
}

// racy has two goroutines write to one variable.
func racy(ctx context.Context, w *coppice.Worker) error {
	n, done := 0, make(chan struct{})
	go func() { n = 1; close(done) }()
	n = 2
	<-done
	if n == 0 {
		return errors.New("neither has written")
	}
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// TestRacyByGoTest: under go test -race a data race in a worker process fails the test.
func TestRacyByGoTest(t *testing.T) {
	out, _, err := goTest(t, []string{racyVar + "=1"}, "-test.run=TestUserRacy")
	if err == nil || !strings.Contains(out, "web/0 had a data race") || !strings.Contains(out, "DATA RACE") {
		t.Errorf("%v:\n%s", err, out)
	}
}
