package server

import (
	"context"
	"time"

	"qgjob/internal/store"
)

const (
	// dispatchEvery bounds how long a wake-up that got lost can delay a job.
	dispatchEvery = time.Second
	// dispatchBackoff is the longest pause after errors.
	dispatchBackoff = 5 * time.Second
)

// dispatchLoop gives jobs to waiting devices: whenever something was queued or a device waits, and
// every second. Dispatches of one server never overlap; those of several are put in order by the store.
func (s *Server) dispatchLoop(ctx context.Context) {
	news := s.store.Subscribe(store.TopicQueue)
	defer news.Close()
	pause := dispatchEvery
	for {
		start := time.Now()
		n, err := s.store.Dispatch(ctx)
		if ctx.Err() != nil {
			return
		}
		s.metrics.dispatched(n, time.Since(start))
		wake := news.C
		if err != nil {
			s.log.Error("jobs could not be given to devices", "error", err, "again_in", pause)
			pause = min(2*pause, dispatchBackoff)
			wake = nil // news does not help a database that fails
		} else {
			pause = dispatchEvery
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}
