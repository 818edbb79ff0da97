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
			e.Attempt = j.Attempts
			err := t.query(ctx, func(row scanner) error {
				var worker string
				err := row.Scan(&worker, &e.DeviceID)
				t.publish(TopicWorker(worker))
				return err
			}, `select worker_id, device_id from attempts where job_seq = $1 and outcome = ''`, j.seq)
			if err != nil {
				return err
			}
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
