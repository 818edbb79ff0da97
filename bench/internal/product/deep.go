package product

import (
	"context"
	"errors"
	"net/http"
	"time"

	"qgjob"
	"qgjob/bench/internal/measure"
	"qgjob/bench/internal/result"
	"qgjob/bench/internal/rig"
	"qgjob/bench/internal/wire"
	"qgjob/internal/api"
)

// looks is how often something is done whose median is taken.
const looks = 21

// Deep measures what people meet when the queue is deep: the command line, a page of the list, a server's start.
func (q *Queue) Deep(ctx context.Context, s measure.Session, name string) error {
	conn, err := wire.Dial(ctx, q.address)
	if err != nil {
		return err
	}
	job, err := q.someJob(ctx, conn)
	if err == nil {
		err = q.listings(ctx, s, name, conn)
	}
	if err = errors.Join(err, conn.Close()); err != nil {
		return err
	}
	status, err := median(func() error { return q.status(ctx, job) })
	if err != nil {
		return err
	}
	s.Record(result.Depth, name, "qgjob status, whole process", status)
	if err := q.process.Stop(); err != nil {
		return err
	}
	took, err := q.start(ctx)
	if err != nil {
		return err
	}
	s.Record(result.Depth, name, "server start until healthy", milliseconds(took))
	return nil
}

// listings measures pages of the list of jobs: the newest, those of a state, of an app version, and the page that
// follows the newest.
func (q *Queue) listings(ctx context.Context, s measure.Session, name string, conn *wire.Conn) error {
	var first api.JobList
	if err := conn.Call(ctx, http.MethodGet, "/v1/jobs", nil, &first); err != nil {
		return err
	}
	for _, page := range []struct{ label, query string }{
		{"listing page, newest", ""},
		{"listing page, next", "?cursor=" + first.Next},
		{"listing page, one state", "?state=passed"},
		{"listing page, one app version", "?org_id=bench&app_version_id=" + first.Jobs[0].AppVersionID},
		{"listing page, one app version and state", "?org_id=bench&state=queued&app_version_id=" + first.Jobs[0].AppVersionID},
	} {
		took, err := median(func() error {
			_, err := conn.Do(ctx, http.MethodGet, "/v1/jobs"+page.query, nil)
			return err
		})
		if err != nil {
			return err
		}
		s.Record(result.Depth, name, page.label, took)
	}
	return nil
}

// status runs `qgjob status` as a person would.
func (q *Queue) status(ctx context.Context, job string) error {
	p, err := q.stage.Start(ctx, rig.Command{Path: q.binary, Args: []string{"status", "--url=http://" + q.address, "--job-id=" + job}})
	if err != nil {
		return err
	}
	<-p.Ended()
	return p.Err()
}

// median is the median time of f, in milliseconds.
func median(f func() error) (float64, error) {
	var took []float64
	for range looks {
		begin := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		took = append(took, milliseconds(time.Since(begin)))
	}
	return result.Quantile(took, 0.5), nil
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1e3 }

// Connections measures what those who wait cost the server in memory: clients that watch a job, and workers with one
// device that wait in a poll.
func (q *Queue) Connections(ctx context.Context, s measure.Session, name string) error {
	client, err := q.Client(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(client.Submit(ctx, 1), client.Close()); err != nil {
		return err
	}
	n := s.Size.Connections
	conns := make([]*wire.Conn, n)
	for i := range conns {
		if conns[i], err = wire.Dial(ctx, q.address); err != nil {
			return err
		}
		defer func() { _ = conns[i].Close() }()
	}
	job, err := q.someJob(ctx, conns[0])
	if err != nil {
		return err
	}
	each, err := q.cost(ctx, n, func() error {
		for _, c := range conns {
			if err := c.Watch("/v1/jobs/" + job + "/events"); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.Record(result.Memory, name, "each waiting client", each)
	return q.waitingWorkers(ctx, s, name)
}

func (q *Queue) waitingWorkers(ctx context.Context, s measure.Session, name string) error {
	n := s.Size.Connections
	ctx, leave := context.WithCancel(ctx)
	polls := make(chan error, n)
	begun := 0
	each, err := q.cost(ctx, n, func() error {
		for ; begun < n; begun++ {
			w := newWorker(q.address, 1)
			w.devices[0].Kind = qgjob.TargetBrowserStack // nothing here is for it: it waits
			if err := w.register(ctx); err != nil {
				return err
			}
			go func() {
				conn, err := wire.Dial(ctx, q.address)
				if err == nil {
					_, err = w.poll(ctx, conn, 1, []api.AttemptResult{})
					err = errors.Join(err, conn.Close())
				}
				polls <- err
			}()
		}
		return nil
	})
	if err == nil && len(polls) > 0 {
		err = errors.Join(errors.New("a worker did not wait"), <-polls)
		begun--
	}
	leave()
	for range begun {
		<-polls // ended by leave
	}
	if err != nil {
		return err
	}
	s.Record(result.Memory, name, "each waiting worker", each)
	return nil
}

// cost is how much memory the server takes for each of n that f brings.
func (q *Queue) cost(ctx context.Context, n int, f func() error) (float64, error) {
	before, err := q.process.RSS()
	if err != nil {
		return 0, err
	}
	if err := f(); err != nil {
		return 0, err
	}
	if err := measure.Rest(ctx); err != nil {
		return 0, err
	}
	after, err := q.process.RSS()
	return float64(after-before) / float64(n), err
}
