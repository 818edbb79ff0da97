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
	e := qgjob.Event{Cause: cause}
	if j.State == qgjob.Running {
		a := t.b.ofJob[j.seq]
		e.Attempt, e.DeviceID = a.number, a.device
		t.publish(TopicWorker(a.worker))
	}
	j.Cause = cause
	return t.move(j, qgjob.Cancel, e)
}
