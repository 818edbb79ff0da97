// Package measure takes the measurements: one file each. It hands results on as they come and knows nothing of
// tables; contestants it knows by package contest's interfaces.
//
// Everything is bounded: a measurement takes about the length that it is given, and no more jobs than it was
// filled with.
package measure

import (
	"context"
	"errors"
	"fmt"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/rig"
)

// Session is one turn on the stage.
type Session struct {
	Stage  *rig.Rig
	Size   Size
	Record func(measure, contestant, aCase string, value float64)

	Profiler rig.Profiler
}

// Size is how long and how large measurements are.
type Size struct {
	Warm, Window time.Duration // of a rate
	Starts       int           // that a latency is made of
	Bursts       int           // that a claim rate is made of
	Depths       []int         // of the queue, in growing order
	Connections  int           // watchers and workers whose memory is measured
	Crews        []contest.Crew
}

// Full is the size whose numbers mean something, Short proves that everything works.
var (
	Full = Size{
		Warm: 500 * time.Millisecond, Window: 3 * time.Second, Starts: 200, Bursts: 20,
		Depths: []int{1_000, 100_000, 1_000_000}, Connections: 500,
		Crews: []contest.Crew{
			{Workers: 16, Devices: 1},
			{Workers: 64, Devices: 1},
			{Workers: 256, Devices: 1},
			{Workers: 4, Devices: 20},
			{Workers: 2, Devices: 100},
		},
	}
	Short = Size{
		Warm: 50 * time.Millisecond, Window: 200 * time.Millisecond, Starts: 20, Bursts: 2,
		Depths: []int{1_000, 5_000, 10_000}, Connections: 20,
		Crews: []contest.Crew{{Workers: 16, Devices: 1}, {Workers: 64, Devices: 1}, {Workers: 256, Devices: 1}, {Workers: 4, Devices: 20}, {Workers: 2, Devices: 100}},
	}
)

// on puts a contestant on the stage for f.
func on[T contest.Inbox](ctx context.Context, s Session, c contest.Contestant[T], f func(T) error) (err error) {
	opened, err := c.Open(ctx, s.Stage)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	defer func() {
		if err = errors.Join(err, opened.Close()); err != nil {
			err = fmt.Errorf("%s: %w", c.Name, err)
		}
	}()
	return f(opened)
}

// meter reads how much processor time a contestant that is a process uses, database included.
type meter struct {
	stage  *rig.Rig
	server *rig.Process // nil: not a process
	begin  time.Duration
	finish func() error // of the profile
}

func (s Session) meter(ctx context.Context, q contest.Inbox, name string) (*meter, error) {
	m := &meter{stage: s.Stage}
	if server, ok := q.(contest.Server); ok {
		m.server = server.Process()
	}
	var err error
	if m.finish, err = s.Profiler.Begin(ctx, s.Stage, m.server, name); err == nil && m.server != nil {
		m.begin, err = s.Stage.CPU(m.server)
	}
	return m, err
}

// each is the time for each of n jobs since the beginning, in microseconds; zero for what is no process. It ends the profile.
func (m *meter) each(n float64) (float64, error) {
	if m.server == nil {
		return 0, m.finish()
	}
	end, err := m.stage.CPU(m.server)
	err = errors.Join(err, m.finish())
	return (end - m.begin).Seconds() * 1e6 / n, err
}

// fillRequest is how many jobs one request brings when a queue is filled.
const fillRequest = 10_000

// fill submits jobs, in as few requests as can be.
func fill(ctx context.Context, q contest.Inbox, jobs int) error {
	client, err := q.Client(ctx)
	if err != nil {
		return err
	}
	for jobs > 0 && err == nil {
		n := min(jobs, fillRequest)
		err = client.Submit(ctx, n)
		jobs -= n
	}
	return errors.Join(err, client.Close())
}

// staff lets a crew work while f runs.
func staff(ctx context.Context, q contest.Queue, crew contest.Crew, f func(ctx context.Context) error) error {
	working, dismiss := context.WithCancelCause(ctx)
	defer dismiss(nil)
	left := make(chan error, 1)
	go func() {
		err := q.Work(working, crew)
		if err != nil {
			dismiss(err) // f is not to wait for work that nobody does
		}
		left <- err
	}()
	err := f(working)
	dismiss(nil)
	return errors.Join(err, <-left)
}

// pause waits unless the context ends first.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
