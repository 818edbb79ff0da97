package cli

import (
	"context"
	"fmt"

	"qgjob"
	"qgjob/internal/api"
)

// waitedJob is a job whose verdict a command waits for. What it prints on stdout is the contract's.
type waitedJob struct {
	job      qgjob.Job
	last     qgjob.Event
	attempt  int
	device   string
	failures map[bool]int // attempts that are tried again: by the test's fault or not
}

func newWaitedJob(job qgjob.Job) *waitedJob {
	return &waitedJob{job: job, last: qgjob.Event{State: job.State}, failures: map[bool]int{}}
}

func (j *waitedJob) names() (noun, id, runID string) { return "job", j.job.ID, j.job.RunID }

func (j *waitedJob) begin(s *screen) {
	s.line(fmt.Sprintf("Waiting for job: %s | App Version: %s | Priority: %d | Test: %s to complete...",
		j.job.ID, j.job.AppVersionID, j.job.Priority, j.job.TestPath))
}

// watch brings the events of the job's log, those from before first.
func (j *waitedJob) watch(ctx context.Context, c *api.Client, send func(func(*screen) bool) error) error {
	return c.WatchJob(ctx, j.job.ID, 0, func(e qgjob.Event) error {
		return send(func(s *screen) bool {
			j.take(s, e)
			return e.State.IsVerdict()
		})
	})
}

// take shows an event.
func (j *waitedJob) take(s *screen, e qgjob.Event) {
	j.last = e
	if e.Attempt > 0 {
		j.attempt = e.Attempt
	}
	j.device = ""
	switch e.Trigger {
	case qgjob.Assign:
		j.device = e.DeviceID
	case qgjob.Retry:
		test := e.Outcome == qgjob.OutcomeFailed || e.Outcome == qgjob.OutcomeTimedOut
		budget := qgjob.InfraRetries
		if test {
			budget = qgjob.TestRetries
		}
		j.failures[test]++
		s.note("Attempt %d %s on %s: %s. Retrying job... (%d/%d)", e.Attempt, e.Outcome, e.DeviceID, because(e.Cause, e.Message), j.failures[test], budget)
	case qgjob.HandBack:
		s.note("Attempt %d ended without cost: %s.", e.Attempt, because(e.Cause, e.Message))
	}
	s.status(e.State)
}

func (j *waitedJob) now() (state qgjob.JobState, details []string) {
	if j.attempt > 1 {
		details = append(details, fmt.Sprintf("attempt %d", j.attempt))
	}
	if j.device != "" {
		details = append(details, j.device)
	}
	return j.last.State, details
}

func (j *waitedJob) finish(ctx context.Context, w *waiting) error {
	detail, err := within(ctx, w.conn, func(ctx context.Context, c *api.Client) (api.JobDetail, error) { return c.Job(ctx, j.job.ID) })
	code := verdictExit(j.last.State, j.last.Cause)
	if w.json {
		if err != nil {
			return err
		}
		if err := printJSON(w.p.stdout, detail); err != nil {
			return err
		}
		return exitWith(code)
	}
	if err != nil { // the event says enough
		detail.Job = j.job
		detail.State, detail.Cause, detail.Message = j.last.State, j.last.Cause, j.last.Message
	}
	w.screen.verdict(detail, w.conn.ephemeral)
	return exitWith(code)
}
