package thin

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/load"
	"qgjob/bench/internal/wire"
)

// pollWait is how long a worker lets the server wait for a job.
const pollWait = 20 * time.Second

// Client submits to a thin server.
type Client struct {
	conn *wire.Conn
	jobs *load.Jobs
}

// NewClient connects a client.
func NewClient(ctx context.Context, address string) (*Client, error) {
	conn, err := wire.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	return &Client{conn, load.NewJobs()}, nil
}

// Submit submits jobs in one request.
func (c *Client) Submit(ctx context.Context, jobs int) error {
	_, err := c.conn.Do(ctx, http.MethodPost, "/v1/runs", c.jobs.Body(jobs))
	return err
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Work runs no-op workers against a thin server until the context ends.
func Work(ctx context.Context, address string, crew contest.Crew) error {
	control, err := wire.Dial(ctx, address)
	if err != nil {
		return err
	}
	slots := strconv.Itoa(crew.Workers * crew.Devices)
	if _, err := control.Do(ctx, http.MethodPut, "/work/"+slots, []byte("{}")); err != nil {
		return errors.Join(err, control.Close())
	}
	err = load.Together(ctx, crew.Workers, func(ctx context.Context, _ int) error { return work(ctx, address, crew) })
	_, errStop := control.Do(context.WithoutCancel(ctx), http.MethodDelete, "/work", nil)
	return errors.Join(err, errStop, control.Close())
}

func work(ctx context.Context, address string, crew contest.Crew) error {
	conn, err := wire.Dial(ctx, address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var done []string
	for {
		want := crew.Gate.TryPass(crew.Devices)
		if want == 0 && len(done) == 0 {
			if want, err = crew.Gate.Pass(ctx, crew.Devices); err != nil {
				return err
			}
		}
		var answer pollResponse
		request := pollRequest{Done: done, Want: want, WaitMS: pollWait.Milliseconds()}
		if err := conn.Call(ctx, http.MethodPost, "/v1/poll", request, &answer); err != nil {
			return err
		}
		done = done[:0]
		for _, j := range answer.Jobs {
			crew.Started()
			done = append(done, j.ID)
		}
		crew.Gate.Open(want - len(done))
	}
}
