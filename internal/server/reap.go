package server

import (
	"context"
	"log/slog"
	"time"
)

// reapEvery is how often leases are looked at that may have run out.
const reapEvery = 3 * time.Second

// reapLoop calls reap, which takes jobs back from workers whose lease ran out, every few seconds until the
// context ends. Workers could not renew their leases while this server was down or stood still, so nothing
// is reaped for one lease after the start, and after a stretch in which the loop did not get to run.
func reapLoop(ctx context.Context, log *slog.Logger, lease time.Duration, reap func(context.Context) error) {
	every := min(reapEvery, lease/10)
	ticker := time.NewTicker(every)
	defer ticker.Stop()

	// Without the monotonic reading, which stands still while a laptop sleeps.
	last := time.Now().Round(0)
	quietUntil := last.Add(lease)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := time.Now().Round(0)
		if gap := now.Sub(last); gap > lease/2 {
			log.Warn("the server stood still: leases get time to be renewed", "for", gap)
			quietUntil = now.Add(lease)
		}
		last = now
		if now.Before(quietUntil) {
			continue
		}
		if err := reap(ctx); err != nil && ctx.Err() == nil {
			log.Error("leases that ran out could not be ended", "error", err)
		}
	}
}
