package store

import (
	"context"
	"fmt"
	"time"

	"qgjob"
)

// Reap ends the attempts whose lease ran out and forgets workers unseen for a lease. It returns how many
// attempts it ended. Any server may call it at any time; not to do so for one lease after a start or a
// stall is its caller's rule. It ends nothing when ctx has ended before its transaction began: the database
// stood still for so long, and the heartbeats of that time may wait behind it.
func (s *Store) Reap(ctx context.Context) (int, error) {
	n := 0
	asked := ctx
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		if asked.Err() != nil {
			return qgjob.Errorf(qgjob.CodeUnavailable, "the database took too long: no lease was ended: %w", asked.Err())
		}
		lost := t.b.attempts(func(a *attempt) bool { return a.expires <= t.now })
		lost = lost[:min(len(lost), reapLimit)]
		if err := t.endAll(ctx, lost, lostResult(t.w.lease)); err != nil {
			return err
		}
		var gone []string
		for id, w := range t.b.workers {
			if w.seen <= t.now-t.w.lease.Milliseconds() && len(gone) < reapLimit {
				gone = append(gone, id)
			}
		}
		if err := t.forget(ctx, gone); err != nil {
			return err
		}
		n = len(lost)
		return t.sweep(ctx)
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// reapLimit bounds one transaction; what is over comes with the next.
const reapLimit = 1000

func lostResult(lease time.Duration) func(*attempt) qgjob.Result {
	return func(a *attempt) qgjob.Result {
		if !a.acknowledged {
			return qgjob.Result{Outcome: qgjob.OutcomeLost, Cause: qgjob.CauseNotDelivered, Message: "its worker never received it"}
		}
		return qgjob.Result{
			Outcome: qgjob.OutcomeLost, Cause: qgjob.CauseLeaseExpired,
			Message: fmt.Sprintf("worker %s was not heard of for %s", a.worker, lease),
		}
	}
}

// sweep deletes the lanes that are empty.
func (t *tx) sweep(ctx context.Context) error {
	return t.exec(ctx, `delete from lanes where queued = 0`)
}
