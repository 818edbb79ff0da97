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
		if j.State == qgjob.Canceling || j.State.IsVerdict() {
			canceled = j.Job
			return nil
		}
		e := qgjob.Event{Cause: qgjob.CauseCanceled}
		if j.State == qgjob.Running {
			a := t.b.ofJob[j.seq]
			e.Attempt, e.DeviceID = a.number, a.device
			t.publish(TopicWorker(a.worker))
		} else {
			j.Cause = qgjob.CauseCanceled
		}
		if err := t.move(j, qgjob.Cancel, e); err != nil {
			return err
		}
		canceled = j.Job
		return nil
	})
	return canceled, err
}
