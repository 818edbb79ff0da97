package server

import (
	"context"
	"time"
)

// reapLoop takes jobs back from workers whose lease ran out. Workers could not renew their leases while
// this server was down or stood still, so nothing is reaped for one lease after its start, and after a
// stretch in which its own clock did not get to tick.
func (s *Server) reapLoop(ctx context.Context) {
	lease := s.store.Lease()
	every := min(lease/10, 5*time.Second)
	ticker := time.NewTicker(every)
	defer ticker.Stop()

	last := time.Now()
	quietUntil := last.Add(lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		// Round strips the monotonic clock, which stands still while a laptop sleeps.
		now := time.Now()
		if gap := now.Round(0).Sub(last.Round(0)); gap > lease/2 {
			s.log.Warn("the server stood still; leases get time to be renewed", "for", gap)
			quietUntil = now.Add(lease)
		}
		last = now
		if now.Before(quietUntil) {
			continue
		}
		n, err := s.store.Reap(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.log.Error("leases that ran out could not be ended", "error", err)
		case n > 0:
			s.metrics.reaped.Add(float64(n))
			s.log.Warn("leases ran out: the jobs go back to the queue", "attempts", n)
		}
	}
}
