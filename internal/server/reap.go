package server

import (
	"context"
	"log/slog"
	"time"
)

// reapEvery is how often leases are looked at that may have run out.
const reapEvery = 3 * time.Second

// reapLoop calls reap, which takes jobs back from workers whose lease ran out, every few seconds until the
// context ends. Workers could not renew their leases while this server was down or stood still, or while its
// database did not answer, so nothing is reaped for one lease after the start, after a stretch in which the
// loop did not get to run, and after the last error. Meanwhile ping finds out whether the database answers.
// Both get half a lease: what the database does later is as good as an error.
func reapLoop(ctx context.Context, log *slog.Logger, lease time.Duration, ping, reap func(context.Context) error) {
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
		look := reap
		if now.Before(quietUntil) {
			look = ping
		}
		bounded, cancel := context.WithTimeout(ctx, lease/2)
		err := look(bounded)
		cancel()
		if err != nil && ctx.Err() == nil {
			log.Error("leases could not be looked at: those that run out now get time to be renewed", "error", err)
			quietUntil = time.Now().Round(0).Add(lease)
		}
	}
}
