package measure

import (
	"context"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/result"
)

// Rest gives a server a moment to finish what it has begun, before its memory is read.
func Rest(ctx context.Context) error { return pause(ctx, time.Second) }

// memory records how much memory a contestant that is a process has resident.
func memory(ctx context.Context, s Session, name, aCase string, q contest.Inbox) error {
	server, ok := q.(contest.Server)
	if !ok {
		return nil
	}
	if err := Rest(ctx); err != nil {
		return err
	}
	rss, err := server.Process().RSS()
	if err != nil {
		return err
	}
	s.Record(result.Memory, name, aCase, float64(rss))
	return nil
}

// Connected is a Queue that knows who waits.
type Connected interface {
	Connections(ctx context.Context, s Session, name string) error
}

// Connections measures the memory that each of those who wait takes.
func Connections(ctx context.Context, s Session, c contest.Contestant[contest.Queue]) error {
	return on(ctx, s, c, func(q contest.Queue) error {
		if connected, ok := q.(Connected); ok {
			return connected.Connections(ctx, s, c.Name)
		}
		return nil
	})
}
