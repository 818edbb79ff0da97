package store

import (
	"context"

	"qgjob"
)

// Cancel asks for the end of a job: a queued one is canceled at once, a running one becomes canceling.
// A job that is canceling or has a verdict stays as it is, without an error.
func (s *Store) Cancel(ctx context.Context, org, jobID string) (qgjob.Job, error) {
	var canceled qgjob.Job
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		j, err := t.find(ctx, org, jobID)
		if err != nil {
			return err
		}
		if j.State != qgjob.Canceling && !j.State.IsVerdict() {
			if err := t.cancel(j, qgjob.CauseCanceled); err != nil {
				return err
			}
		}
		canceled = j.Job
		return nil
	})
	return canceled, err
}

// cancel moves a job that is queued or running towards its end, for the given cause.
func (t *tx) cancel(j *job, cause qgjob.Cause) error {
	stopped := &attempt{}
	if j.State == qgjob.Running {
		stopped = t.b.ofJob[j.seq]
		t.publish(TopicWorker(stopped.worker))
	}
	j.Cause = cause
	if err := t.move(j, qgjob.Cancel); err != nil {
		return err
	}
	t.cancels = append(t.cancels, []any{j.seq, j.events, stopped.number, stopped.device, cause, t.now})
	return nil
}
