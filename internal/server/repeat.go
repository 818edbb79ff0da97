package server

import (
	"context"
	"log/slog"
	"time"
)

const (
	// giveUpEvery is how exactly the time limit of a queue is kept.
	giveUpEvery = time.Second
	// calibrateEvery is how often predictions are made and judged. Waits are told in seconds.
	calibrateEvery = 5 * time.Second
)

// repeatLoop calls do every so often until the context ends. What hinders it is told as trouble.
func repeatLoop(ctx context.Context, log *slog.Logger, every time.Duration, trouble string, do func(context.Context) error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := do(ctx); err != nil && ctx.Err() == nil {
			log.Error(trouble, "error", err)
		}
	}
}
