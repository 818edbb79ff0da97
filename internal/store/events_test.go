package store

import (
	"context"
	"reflect"
	"slices"
	"testing"

	"qgjob"
)

// undoEvents brings an empty table of events, and the schema, from 71 to 69.
var undoEvents = append(slices.Clone(undoFirstAttempts),
	`create table events (job_seq bigint not null, seq bigint not null, org_id text not null, trigger text not null, state text not null, attempt bigint not null,
		device_id text not null, outcome text not null, cause text not null, message text not null, at_ms bigint not null, primary key (job_seq, seq))`,
	`drop table cancels`,
	`alter table attempts drop column assigned_event`,
	`alter table attempts drop column ended_event`,
	`delete from goose_db_version where version_id = 70`,
)

// What a database of the schema before says of jobs' events is told by this one, to the letter.
func TestEventsOfAnOlderSchemaAreKept(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) {
			q := open(t, database(t, kind))
			q.worker("w1", "p1")
			jobs := q.submit("v1", "a.spec.js", "b.spec.js", "c.spec.js", "d.spec.js", "e.spec.js")
			retried := q.one("w1", "p1")
			q.report("w1", retried.Lease, failed)
			q.report("w1", q.one("w1", "p1").Lease, passed)
			canceling := q.one("w1", "p1")
			must(t, qgjob.Job{}, second(q.Cancel(t.Context(), "", canceling.Job.ID)))
			q.report("w1", canceling.Lease, stopped)
			running := q.one("w1", "p1")
			for _, j := range jobs {
				if q.job(j.ID).Job.State == qgjob.Queued {
					must(t, qgjob.Job{}, second(q.Cancel(t.Context(), "", j.ID)))
					break
				}
			}
			before := map[string]JobDetail{}
			for _, j := range jobs {
				before[j.ID] = q.job(j.ID)
			}
			wantStory(t, before[retried.Job.ID], "submit>queued assign>running/1@p1 retry>queued/1@p1 assign>running/2@p1 pass>passed/2@p1")
			wantStory(t, before[canceling.Job.ID], "submit>queued assign>running/1@p1 cancel>canceling/1@p1 stop>canceled/1@p1")
			wantStory(t, before[running.Job.ID], "submit>queued assign>running/1@p1")
			checkCounters(t, q)

			must(t, 0, q.write(t.Context(), func(ctx context.Context, w *tx) error {
				for _, text := range undoEvents {
					if err := w.exec(ctx, text); err != nil {
						return err
					}
				}
				for i, j := range jobs {
					for _, e := range before[j.ID].Events {
						err := w.exec(ctx, `insert into events (job_seq, seq, org_id, trigger, state, attempt, device_id, outcome, cause, message, at_ms) values ($1, $2, 'acme', $3, $4, $5, $6, $7, $8, $9, $10)`,
							i+1, e.Seq, e.Trigger, e.State, e.Attempt, e.DeviceID, e.Outcome, e.Cause, e.Message, e.At.UnixMilli())
						if err != nil {
							return err
						}
					}
				}
				return nil
			}))
			must(t, 0, q.Close())
			q = open(t, q.options)
			for id, want := range before {
				if got := q.job(id); !reflect.DeepEqual(got, want) {
					t.Errorf("job %s was\n%+v\nand is\n%+v", id, want, got)
				}
			}
			checkCounters(t, q)
		})
	}
}

// checkEvents finds jobs whose events are not a way through the state machine, each with the next number.
func checkEvents(ctx context.Context, s *Store) error {
	var ids []string
	err := s.query(ctx, func(row scanner) error {
		var id string
		err := row.Scan(&id)
		ids = append(ids, id)
		return err
	}, `select id from jobs order by seq`)
	if err != nil {
		return err
	}
	for _, id := range ids[max(0, len(ids)-100):] {
		d, err := s.Job(ctx, "", id)
		if err != nil {
			return err
		}
		var state qgjob.JobState
		for i, e := range d.Events {
			next, err := state.Next(e.Trigger)
			if err != nil || next != e.State || e.Seq != i+1 {
				return qgjob.Errorf(qgjob.CodeInternal, "job %s: event %d is %+v after %q: %v", id, i+1, e, state, err)
			}
			state = next
		}
		if state != d.Job.State {
			return qgjob.Errorf(qgjob.CodeInternal, "job %s is %s, and its events end with %s", id, d.Job.State, state)
		}
	}
	return nil
}
