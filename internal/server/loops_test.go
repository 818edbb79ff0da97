package server

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// work stands for what a loop calls: it records when, takes as long and fails as it is told.
type work struct {
	mu    sync.Mutex
	start time.Time
	calls []time.Duration // since start
	takes time.Duration
	err   error
}

func (w *work) do(context.Context) error {
	w.mu.Lock()
	w.calls = append(w.calls, time.Since(w.start))
	takes, err := w.takes, w.err
	w.mu.Unlock()
	time.Sleep(takes)
	return err
}

func (w *work) become(takes time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.takes, w.err = takes, err
}

// restart returns the calls so far and counts time from now on.
func (w *work) restart() []time.Duration {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	calls := w.calls
	w.start, w.calls = time.Now(), nil
	return calls
}

func TestReapLoopWaitsALeaseAfterStartAndStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const lease = 45 * time.Second
		reap := &work{start: time.Now()}
		go reapLoop(ctx, slog.New(slog.DiscardHandler), lease, silent, reap.do)

		time.Sleep(2 * time.Minute)
		calls := reap.restart()
		if len(calls) < 20 || calls[0] < lease || calls[0] > lease+reapEvery {
			t.Errorf("reaps in the first two minutes: %v; want them every %v, from one lease after the start on", calls, reapEvery)
		}

		reap.become(time.Minute, nil) // a database that hangs
		time.Sleep(reapEvery + time.Millisecond)
		reap.become(0, nil)
		if calls = reap.restart(); len(calls) != 1 {
			t.Fatalf("reaps: %v, want the one that hangs", calls)
		}
		time.Sleep(3 * time.Minute)
		calls = reap.restart()
		if want := time.Minute + lease - time.Second; len(calls) == 0 || calls[0] < want || calls[0] > want+2*reapEvery {
			t.Errorf("reaps after a stall of a minute: %v; want none for one lease after its end", calls)
		}
	})
}

func silent(context.Context) error { return nil }

// While the database is away no worker can renew its lease: all of them have run out when it is back.
func TestReapLoopWaitsALeaseAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		const lease = 45 * time.Second
		ping, reap := &work{start: time.Now()}, &work{start: time.Now()}
		go reapLoop(ctx, slog.New(slog.DiscardHandler), lease, ping.do, reap.do)
		time.Sleep(2 * time.Minute)
		reap.restart()

		away := errors.New("database is away")
		ping.become(0, away)
		reap.become(0, away)
		time.Sleep(5 * time.Minute)
		if calls := reap.restart(); len(calls) != 1 {
			t.Errorf("reaps while the database is away: %v, want the one that met it", calls)
		}
		ping.become(0, nil)
		reap.become(0, nil)
		time.Sleep(2 * time.Minute)
		if calls := reap.restart(); len(calls) < 20 || calls[0] < lease-reapEvery {
			t.Errorf("reaps after the outage: %v; want them to go on after one lease", calls)
		}
	})
}

func TestDispatchLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		news := make(chan struct{}, 1)
		dispatch := &work{start: time.Now()}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			dispatchLoop(ctx, slog.New(slog.DiscardHandler), news, dispatch.do)
		}()
		expect := func(what string, want ...time.Duration) {
			t.Helper()
			if calls := dispatch.restart(); !slices.Equal(calls, want) {
				t.Errorf("%s: dispatched at %v, want %v", what, calls, want)
			}
		}
		seconds := func(s ...float64) (d []time.Duration) {
			for _, x := range s {
				d = append(d, time.Duration(x*float64(time.Second)))
			}
			return d
		}

		expect("at the start", 0)
		news <- struct{}{}
		expect("at news", 0)
		time.Sleep(2500 * time.Millisecond)
		expect("without news", seconds(1, 2)...)

		dispatch.become(0, errors.New("database is away"))
		news <- struct{}{}
		synctest.Wait()
		news <- struct{}{}
		time.Sleep(32 * time.Second)
		expect("while it fails", seconds(0, 1, 3, 7, 15, 23, 31)...)

		dispatch.become(0, nil)
		time.Sleep(7500 * time.Millisecond)
		expect("mended", seconds(7, 7)...) // the second for the news of meanwhile

		cancel()
		<-ended
	})
}
