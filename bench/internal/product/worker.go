package product

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"

	"qgjob"
	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/load"
	"qgjob/bench/internal/wire"
	"qgjob/internal/api"
)

const (
	// pollWait is how long a worker lets the server wait for a job.
	pollWait = 20 * time.Second
	// leaveTimeout bounds a worker's farewell.
	leaveTimeout = 5 * time.Second
)

// Work runs no-op workers until the context ends. They speak the worker protocol as real workers do, heartbeats
// included: each hands its results in with the poll that asks for the next jobs.
func (q *Queue) Work(ctx context.Context, crew contest.Crew) error {
	return load.Together(ctx, crew.Workers, func(ctx context.Context, _ int) error {
		w := newWorker(q.address, crew.Devices)
		if err := w.register(ctx); err != nil {
			return err
		}
		err := load.Together(ctx, 2, func(ctx context.Context, i int) error {
			if i == 0 {
				return w.heartbeats(ctx)
			}
			return w.work(ctx, crew, func(n int64) { q.completed.Add(n) })
		})
		return errors.Join(err, w.leave(ctx))
	})
}

// worker is one worker with its devices.
type worker struct {
	address   string
	id        string
	path      string
	devices   []api.DeviceReport
	ids       []string // of the devices
	heartbeat time.Duration
	seq       int64 // of the newest poll
}

func newWorker(address string, devices int) *worker {
	id := uuid.NewString()
	w := &worker{address: address, id: id, path: "/v1/workers/" + id}
	for i := range devices {
		serial := fmt.Sprintf("%s-%03d", id[:8], i)
		w.ids = append(w.ids, serial)
		w.devices = append(w.devices, api.DeviceReport{
			ID: serial, Serial: serial, Kind: qgjob.TargetDevice, Platform: "android", Model: "Bench 1", OSVersion: "15", State: qgjob.DeviceIdle,
		})
	}
	return w
}

// call makes one request on a connection of its own.
func (w *worker) call(ctx context.Context, method, path string, in, out any) error {
	conn, err := wire.Dial(ctx, w.address)
	if err != nil {
		return err
	}
	return errors.Join(conn.Call(ctx, method, path, in, out), conn.Close())
}

func (w *worker) register(ctx context.Context) error {
	var answer api.RegisterResponse
	err := w.call(ctx, http.MethodPut, w.path, api.RegisterRequest{Host: "bench", Version: "bench", Devices: w.devices}, &answer)
	if err == nil && len(answer.Refused) > 0 {
		err = fmt.Errorf("device %s was refused: %s", answer.Refused[0].DeviceID, answer.Refused[0].Message)
	}
	w.heartbeat = time.Duration(answer.HeartbeatMS) * time.Millisecond
	return err
}

func (w *worker) leave(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	return w.call(ctx, http.MethodPost, w.path+"/leave", api.LeaveRequest{Reason: "the measurement is over"}, nil)
}

// heartbeats keeps the worker alive. Its leases are not named: a no-op job has ended before the next heartbeat.
func (w *worker) heartbeats(ctx context.Context) error {
	tick := time.NewTicker(w.heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if err := w.call(ctx, http.MethodPost, w.path+"/heartbeat", api.HeartbeatRequest{Devices: w.devices, Leases: []api.Lease{}}, nil); err != nil {
			return err
		}
	}
}

// poll hands in results and asks for jobs for the first free devices.
func (w *worker) poll(ctx context.Context, conn *wire.Conn, free int, results []api.AttemptResult) (api.PollResponse, error) {
	w.seq++
	request := api.PollRequest{Seq: w.seq, Devices: w.ids[:free], Leases: []api.Lease{}, Results: results}
	if free > 0 {
		request.WaitMS = pollWait.Milliseconds()
	}
	var answer api.PollResponse
	err := conn.Call(ctx, http.MethodPost, w.path+"/poll", request, &answer)
	return answer, err
}

func (w *worker) work(ctx context.Context, crew contest.Crew, completed func(int64)) error {
	conn, err := wire.Dial(ctx, w.address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	results := []api.AttemptResult{}
	for {
		free := crew.Gate.TryPass(crew.Devices)
		if free == 0 && len(results) == 0 {
			if free, err = crew.Gate.Pass(ctx, crew.Devices); err != nil {
				return err
			}
		}
		answer, err := w.poll(ctx, conn, free, results)
		if err != nil {
			return err
		}
		for _, r := range answer.Results {
			if r.Code != "" {
				return fmt.Errorf("the result of attempt %s was refused: %s", r.AttemptID, r.Message)
			}
		}
		completed(int64(len(answer.Results)))
		results = results[:0]
		for _, a := range answer.Assignments {
			crew.Started()
			results = append(results, api.AttemptResult{Lease: a.Lease, Result: noop})
		}
		crew.Gate.Open(free - len(answer.Assignments))
	}
}

// noop is the result of a job of one test that passed.
var noop = qgjob.Result{Outcome: qgjob.OutcomePassed, Report: qgjob.Report{
	Tests:        []qgjob.TestResult{{Title: "Checkout > pays with a saved card", Status: qgjob.TestPassed, DurationMS: 1}},
	InstallSaved: true,
}}
