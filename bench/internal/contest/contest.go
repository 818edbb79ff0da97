// Package contest says what a queue must be able to do to be measured beside others: take submits from clients
// that each wait for their answer, and hand jobs to workers that do nothing.
//
// The measures know contestants by these interfaces alone; each contestant keeps to its own product's ways.
package contest

import (
	"context"
	"fmt"

	"qgjob/bench/internal/rig"
)

// Contestant is a queue that can be put on the stage any number of times, each time empty.
type Contestant[T any] struct {
	Name string
	Open func(context.Context, *rig.Rig) (T, error)

	Pace    int  // jobs a second that it cannot drain: how far its queue is filled
	Library bool // it is no server: its workers are slots of this process, and hold no devices
}

// Inbox takes submits.
type Inbox interface {
	// Client returns one more client, with a connection of its own where the contestant has connections.
	Client(context.Context) (Client, error)
	// Settle brings the database to rest.
	Settle(context.Context) error
	// Close ends what was started and removes the data.
	Close() error
}

// Client submits jobs. It is used by one goroutine at a time.
type Client interface {
	// Submit returns when the jobs are durable.
	Submit(ctx context.Context, jobs int) error
	Close() error
}

// Queue is an Inbox whose jobs can be worked.
type Queue interface {
	Inbox
	// Work runs the crew until the context ends, which is no error.
	Work(context.Context, Crew) error
	// Completed is how many jobs have ended, durably.
	Completed(context.Context) (int64, error)
}

// Server is an Inbox that is a process of its own.
type Server interface {
	Process() *rig.Process
}

// Crew is how many workers work, and how.
type Crew struct {
	Workers int
	Devices int    // of each worker: so many jobs it runs at once
	Gate    *Gate  // what it may start; nil is everything
	Started func() // called at the start of each job, concurrently
}

func (c Crew) String() string {
	if c.Devices == 1 {
		return fmt.Sprintf("%d workers", c.Workers)
	}
	return fmt.Sprintf("%d × %d devices", c.Workers, c.Devices)
}

// As makes a contestant of a wider kind one of a narrower kind.
func As[To, From any](c Contestant[From]) Contestant[To] {
	return Contestant[To]{Name: c.Name, Pace: c.Pace, Library: c.Library, Open: func(ctx context.Context, r *rig.Rig) (To, error) {
		opened, err := c.Open(ctx, r)
		if err != nil {
			var none To
			return none, err
		}
		return any(opened).(To), nil
	}}
}
