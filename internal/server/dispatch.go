package server

import (
	"context"
	"log/slog"
	"time"
)

const (
	// dispatchEvery bounds how long a wake-up that got lost can delay a job.
	dispatchEvery = time.Second
	// dispatchBackoff is the longest pause after errors.
	dispatchBackoff = 8 * time.Second
)

// dispatchLoop calls dispatch, which gives jobs to waiting devices, at each news and every second, until the
// context ends. Calls never overlap; those of several servers are put in order by the store. After an
// error it pauses, longer after each: news does not help a database that fails.
func dispatchLoop(ctx context.Context, log *slog.Logger, news <-chan struct{}, dispatch func(context.Context) error) {
	pause := dispatchEvery
	for {
		err := dispatch(ctx)
		if ctx.Err() != nil {
			return
		}
		wake := news
		if err == nil {
			pause = dispatchEvery
		} else {
			log.Error("jobs could not be given to devices", "error", err, "again_in", pause)
			wake = nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-wake:
		case <-timer.C:
		}
		timer.Stop()
		if err != nil {
			pause = min(2*pause, dispatchBackoff)
		}
	}
}
