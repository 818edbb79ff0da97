package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// checkCounters compares everything that is counted with a recount.
func checkCounters(t testing.TB, q *queue) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	for _, err := range []error{recount(ctx, q.Store), checkEvents(ctx, q.Store), checkBoard(ctx, q.Store)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// recount finds where counters and lanes differ from what they count.
func recount(ctx context.Context, s *Store) error {
	for what, texts := range map[string][2]string{
		"jobs by state": {
			`select org_id || ' ' || name, value from counters where name like 'jobs/%' and value <> 0`,
			`select org_id || ' jobs/' || state, count(*) from jobs group by org_id, state`,
		},
		"attempts by outcome": {
			`select org_id || ' ' || name, value from counters where name like 'attempts/%' and value <> 0`,
			`select org_id || ' attempts/' || outcome || '/' || cause, count(*) from attempts where outcome <> '' group by org_id, outcome, cause`,
		},
		"queued by lane": {
			`select org_id || ' ' || app_version_id || ' ' || target || requires || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, cast(sum(queued) as bigint) from lanes
				where queued > 0 group by org_id, app_version_id, target, requires, priority, prefer_device, avoid_device`,
			`select org_id || ' ' || app_version_id || ' ' || target || requires || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, count(*) from jobs
				where state = 'queued' group by org_id, app_version_id, target, requires, priority, prefer_device, avoid_device`,
		},
		"queue by lane": {
			`select id || '', queued from lanes where queued > 0`,
			`select lane_id || '', count(*) from queue group by lane_id`,
		},
		"queued are in the lane of their own kind": {
			`select j.seq || ' ' || l.id, 1 from jobs j, lanes l where j.state = 'queued' and l.queued > 0
				and l.org_id = j.org_id and l.app_version_id = j.app_version_id and l.target = j.target and l.requires = j.requires and l.priority = j.priority
				and l.prefer_device = j.prefer_device and l.avoid_device = j.avoid_device
				and l.run_seq = case when exists (select 1 from overflows o where o.run_seq = j.run_seq) then j.run_seq else 0 end`,
			`select job_seq || ' ' || lane_id, 1 from queue`,
		},
		"oldest moment by lane": {
			`select id || '', oldest_at_ms from lanes where queued > 0`,
			`select l.id || '', r.submitted_at_ms from lanes l, jobs j, runs r where l.queued > 0 and j.seq = l.oldest_seq and r.seq = j.run_seq`,
		},
		"oldest by lane": {
			`select org_id || ' ' || app_version_id || ' ' || target || requires || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, min(oldest_seq) from lanes
				where queued > 0 group by org_id, app_version_id, target, requires, priority, prefer_device, avoid_device`,
			`select org_id || ' ' || app_version_id || ' ' || target || requires || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, min(seq) from jobs
				where state = 'queued' group by org_id, app_version_id, target, requires, priority, prefer_device, avoid_device`,
		},
		"bytes of artifacts": {
			`select org_id, value from counters where name = 'artifact_bytes' and value <> 0`,
			`select org_id, cast(sum(size_bytes) as bigint) from artifacts group by org_id`,
		},
		"events by job": {
			`select seq || '', events from jobs`,
			`select job_seq || '', count(*) from (select seq as job_seq from jobs union all select job_seq from attempts where assigned_event > 0
				union all select job_seq from attempts where ended_event > 0 union all select job_seq from cancels) as events group by job_seq`,
		},
		"attempts by job": {
			`select seq || '', attempts from jobs where attempts > 0`,
			`select job_seq || '', case when count(*) = max(number) and min(number) = 1 then count(*) else -1 end from attempts group by job_seq`,
		},
		"first attempts are known to their jobs": {
			`select seq || first_attempt, 1 from jobs where first_attempt <> ''`,
			`select job_seq || id, 1 from attempts where number = 1`,
		},
		"jobs that run have one open attempt": {
			`select seq || '', 1 from jobs where state in ('running', 'canceling')`,
			`select job_seq || '', count(*) from attempts where outcome = '' group by job_seq`,
		},
		"open attempts are on their devices": {
			`select id || attempt_id, 1 from devices where attempt_id <> ''`,
			`select device_id || id, 1 from attempts where outcome = ''`,
		},
		"jobs of runs with a deadline that have no verdict": {
			`select run_seq || '', live from overflows where live > 0`,
			`select j.run_seq || '', count(*) from jobs j, overflows o where o.run_seq = j.run_seq and j.state in ('queued', 'running', 'canceling') group by j.run_seq`,
		},
		"installs": {
			`select 'installs', cast(coalesce(sum(value), 0) as bigint) from counters where name = 'installs'`,
			`select 'installs', cast(coalesce(sum(installs), 0) as bigint) from devices`,
		},
	} {
		var found [2]map[string]int64
		for i, text := range texts {
			found[i] = map[string]int64{}
			err := s.query(ctx, func(row scanner) error {
				var key string
				var n int64
				err := row.Scan(&key, &n)
				found[i][key] = n
				return err
			}, text)
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		if !maps.Equal(found[0], found[1]) {
			return fmt.Errorf("%s: kept %v, counted %v", what, short(found[0]), short(found[1]))
		}
	}
	return nil
}

func short(m map[string]int64) string {
	s := fmt.Sprint(m)
	return s[:min(len(s), 2000)] + strings.Repeat("…", min(1, max(0, len(s)-2000)))
}

// checkBoard compares what the writer remembers with what it would read.
func checkBoard(ctx context.Context, s *Store) error {
	var differs error
	err := s.write(ctx, func(ctx context.Context, t *tx) error {
		differs = nil
		read, err := readBoard(ctx, t.s)
		if err != nil {
			return err
		}
		for what, of := range map[string]func(*board) map[string]string{
			"lanes": func(b *board) map[string]string {
				m := map[string]string{}
				for _, urgent := range b.urgent {
					for i, l := range urgent {
						m[fmt.Sprint(l.target, i)] = fmt.Sprintf("%+v id %d, %d queued, oldest %d at %d", l.lane, l.id, l.queued, l.oldest, l.oldestAt)
						if len(l.heads) > l.queued || len(l.heads) > 0 && l.heads[0].seq != l.oldest || l.whole && len(l.heads) != l.queued || b.lanes[l.lane] != l {
							m[fmt.Sprint(l.target, i)] += ", with wrong heads"
						}
					}
				}
				return m
			},
			"workers": func(b *board) map[string]string {
				m := map[string]string{}
				for id, w := range b.workers {
					m[id] = fmt.Sprint(w.host, w.pollSeq, w.waitingSeq, w.seen)
				}
				return m
			},
			"devices": func(b *board) map[string]string {
				m := map[string]string{}
				for id, d := range b.devices {
					m[id] = fmt.Sprint(d.worker, d.traits(), d.state, d.app, d.waitingUntil, d.waitingUntil > 0 && d.waitingSeq > 0, d.installs, d.saved, d.minutePrice)
					if d.attempt != nil {
						m[id] += d.attempt.id
					}
				}
				return m
			},
			"learned": func(b *board) map[string]string {
				m := map[string]string{}
				for key, e := range b.estimates {
					m[fmt.Sprint(key)] = jsonText(e)
				}
				for id, o := range b.orgs {
					if *o != (orgState{id: id, weightPermille: 1000}) {
						m["org "+id] = fmt.Sprintf("%+v", *o)
					}
				}
				m["calibration"] = jsonText(b.calibration)
				for seq, o := range b.overflows {
					m[fmt.Sprint("overflow ", seq)] = fmt.Sprintf("%+v", *o)
				}
				for g, k := range b.streaks {
					m[fmt.Sprint(g)] = fmt.Sprintf("%+v", *k)
				}
				return m
			},
			"attempts": func(b *board) map[string]string {
				m := map[string]string{}
				for id, a := range b.open {
					m[id] = fmt.Sprint(a.lease(), a.org, a.worker, a.device, a.number, a.acknowledged, a.cancelTold, a.logReceived, a.saved, *a.job, b.ofJob[a.jobSeq] == a)
				}
				for worker, of := range b.ofWorker {
					m["of "+worker] = fmt.Sprint(len(of))
				}
				return m
			},
		} {
			if kept, found := of(t.b), of(read); !maps.Equal(kept, found) {
				differs = fmt.Errorf("%s: remembered %v, read %v", what, kept, found)
			}
		}
		if t.b.nextJob != read.nextJob || t.b.nextID < read.nextID {
			differs = fmt.Errorf("next job %d and lane %d remembered, %d and %d read", t.b.nextJob, t.b.nextID, read.nextJob, read.nextID)
		}
		return nil
	})
	return errors.Join(differs, err)
}
