package server

import (
	"context"
	"log/slog"
	"time"
)

// calibrateEvery is how often predictions are made and judged. Waits are told in seconds.
const calibrateEvery = 5 * time.Second

// calibrateLoop calls calibrate, which learns how expected starts turn out, until the context ends.
func calibrateLoop(ctx context.Context, log *slog.Logger, calibrate func(context.Context) error) {
	ticker := time.NewTicker(calibrateEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := calibrate(ctx); err != nil && ctx.Err() == nil {
			log.Warn("expected starts could not be compared with real ones", "error", err)
		}
	}
}
