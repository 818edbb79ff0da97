package server

import (
	"context"
	"log/slog"
	"time"
)

// giveUpEvery is how exactly the time limit of a queue is kept.
const giveUpEvery = time.Second

// giveUpLoop calls giveUp, which cancels the jobs that waited longer than their run may, until the context ends.
func giveUpLoop(ctx context.Context, log *slog.Logger, giveUp func(context.Context) error) {
	ticker := time.NewTicker(giveUpEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := giveUp(ctx); err != nil && ctx.Err() == nil {
			log.Error("jobs that waited too long could not be given up", "error", err)
		}
	}
}
