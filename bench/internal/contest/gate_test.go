package contest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
)

func TestGateLetsThroughWhatWasOpened(t *testing.T) {
	gate := NewGate()
	ctx, leave := context.WithCancel(context.Background())
	var passed atomic.Int64
	all := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				n, err := gate.Pass(ctx, 3)
				if err != nil {
					return
				}
				if passed.Add(int64(n)) == 100 {
					close(all)
				}
			}
		})
	}
	gate.Open(40)
	gate.Open(60)
	<-all
	leave()
	wg.Wait()
	if got := passed.Load(); got != 100 {
		t.Errorf("%d passed a gate opened for 100", got)
	}
	if got := gate.TryPass(1); got != 0 {
		t.Errorf("%d passed a closed gate", got)
	}
	if _, err := gate.Pass(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting at a closed gate ended with %v", err)
	}
}

func TestNilGateIsOpen(t *testing.T) {
	var gate *Gate
	if n, err := gate.Pass(context.Background(), 5); n != 5 || err != nil {
		t.Errorf("no gate let %d of 5 through, %v", n, err)
	}
}
