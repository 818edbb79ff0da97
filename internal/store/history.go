package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// HistoryFilter selects jobs of the past.
type HistoryFilter struct {
	OrgID  string // empty: every organization
	Since  time.Time
	Cursor string // what the page before returned as next
	Limit  int    // jobs that a page passes over, 1 to 500; 0 is 500
}

// History is a page of jobs, in the order of submission.
type History struct {
	Jobs    []PastJob
	LeftOut int    // jobs that no attempt has brought to a verdict
	Next    string // empty on the last page
}

// PastJob is a job that an attempt brought to its verdict.
type PastJob struct {
	qgjob.Job
	Ran      time.Duration // the test's run in that attempt, without install and reset
	Deadline time.Duration // of its run, from the submit; 0: none
	MaxCost  float64
}

// History returns a page of the jobs that were submitted since a moment, with how long they ran.
func (s *Store) History(ctx context.Context, f HistoryFilter) (h History, err error) {
	if f.Limit == 0 {
		f.Limit = maxPage
	}
	f.Limit = min(max(f.Limit, 1), maxPage)
	err = s.snapshot(ctx, func(query queryFunc) error {
		h = History{}
		from, err := f.from(query)
		if err != nil {
			return err
		}
		text, args := f.page(from)
		passed, last := 0, ""
		err = query(func(row scanner) error {
			j, err := scanPastJob(row)
			passed, last = passed+1, j.ID
			switch {
			case err != nil:
				return err
			case j.SubmittedAt.Before(f.Since): // the clock was set back
			case !j.State.IsVerdict() || j.Ran < 0:
				h.LeftOut++
			default:
				h.Jobs = append(h.Jobs, j)
			}
			return nil
		}, text, args...)
		if passed == f.Limit {
			h.Next = last
		}
		return err
	})
	return h, err
}

// page is the statement of a page's jobs from a sequence on, each with its newest attempt.
func (f HistoryFilter) page(from int64) (text string, args []any) {
	way, order, args := `select seq from jobs where seq >= $1 order by seq limit $2`, `way.seq`, []any{from, f.Limit}
	if f.OrgID != "" {
		way, order, args = `select seq, -seq as back from jobs where org_id = $3 and -seq <= $1 order by -seq desc limit $2`, `way.back desc`, []any{-from, f.Limit, f.OrgID}
	}
	return `
		select j.id, j.org_id, j.app_version_id, j.test_path, j.priority, j.target, j.state, r.id, r.submitted_at_ms,
			coalesce(a.report, ''), coalesce(a.assigned_at_ms, 0), coalesce(a.ended_at_ms, 0), coalesce(o.deadline_ms, 0), coalesce(o.max_cost, 0)
		from (` + way + `) as way
			join jobs j on j.seq = way.seq
			join runs r on r.seq = j.run_seq
			left join overflows o on o.run_seq = j.run_seq
			left join attempts a on a.id = case when j.attempts < 2 then j.first_attempt
				else (select b.id from attempts b where b.job_seq = j.seq and b.number = j.attempts and b.number > 1) end
		order by ` + order, args
}

// scanPastJob reads a job with its newest attempt; Ran is negative when there is none that ended.
func scanPastJob(row scanner) (PastJob, error) {
	var j PastJob
	var submitted, assigned, ended, deadline int64
	var maxCost money
	var report string
	err := row.Scan(&j.ID, &j.OrgID, &j.AppVersionID, &j.TestPath, &j.Priority, &j.Target, &j.State, &j.RunID, &submitted,
		&report, &assigned, &ended, &deadline, (*int64)(&maxCost))
	j.SubmittedAt, j.Ran = at(submitted), -1
	if deadline > 0 {
		j.Deadline, j.MaxCost = time.Duration(deadline-submitted)*time.Millisecond, maxCost.units()
	}
	if err != nil || ended == 0 {
		return j, err
	}
	var r qgjob.Report
	if report != "" {
		if err := json.Unmarshal([]byte(report), &r); err != nil {
			return j, fmt.Errorf("read a report of job %s: %w", j.ID, err)
		}
	}
	ms := r.RunMS
	if ms <= 0 {
		ms = max(ended-assigned-r.InstallMS-r.ResetMS, 0)
	}
	j.Ran = time.Duration(ms) * time.Millisecond
	return j, nil
}

// from is the sequence that a page begins with.
func (f HistoryFilter) from(query queryFunc) (int64, error) {
	if f.Cursor == "" {
		return firstSince(query, f.Since.UnixMilli())
	}
	cursor := int64(-1)
	err := query(func(row scanner) error { return row.Scan(&cursor) },
		`select seq from jobs where id = $1 and ($2 = '' or org_id = $2)`, f.Cursor, f.OrgID)
	if err == nil && cursor < 0 {
		err = qgjob.Errorf(qgjob.CodeInvalid, "cursor %.80q is unknown: use what the page before gave as next", f.Cursor)
	}
	return cursor + 1, err
}

// firstSince finds the sequence from which on runs were submitted since a moment. Runs are in the order of their
// submission, so that halving finds it in a few steps whatever the history's length.
func firstSince(query queryFunc, sinceMS int64) (int64, error) {
	var low, high int64
	if err := query(func(row scanner) error { return row.Scan(&high) }, `select coalesce(max(seq), 0) + 1 from runs`); err != nil {
		return 0, err
	}
	for low < high {
		middle := low + (high-low)/2
		seq, submitted := int64(-1), int64(0)
		err := query(func(row scanner) error { return row.Scan(&seq, &submitted) },
			`select seq, submitted_at_ms from runs where seq >= $1 order by seq limit 1`, middle)
		if err != nil {
			return 0, err
		}
		if seq < 0 || submitted >= sinceMS {
			high = middle
		} else {
			low = seq + 1
		}
	}
	return low, nil
}

// FleetTimes is a device of a live worker with what is expected of it.
type FleetTimes struct {
	DeviceID       string
	Kind           qgjob.Target
	Install, Reset time.Duration
	MinutePrice    float64
}

// Share is an organization's share of the devices, its quota and its budget.
type Share struct {
	OrgID      string
	Weight     float64
	MaxDevices int     // at once; 0: no limit
	MaxCost    float64 // in a month, of jobs that overflow; 0: no budget
}

// Fleet returns the devices of live workers with the times that were learned of their kinds, and what is set for
// organizations. An empty org is every organization.
func (s *Store) Fleet(ctx context.Context, org string) (devices []FleetTimes, shares []Share, err error) {
	err = s.snapshot(ctx, func(query queryFunc) error {
		devices, shares = nil, nil
		estimates := map[estimateKey]sched.Estimate{}
		err := readEstimates(query, func(key estimateKey, e sched.Estimate) { estimates[key] = e })
		if err != nil {
			return err
		}
		err = query(func(row scanner) error {
			var d FleetTimes
			var price money
			err := row.Scan(&d.DeviceID, &d.Kind, (*int64)(&price))
			d.MinutePrice = price.units()
			d.Install = estimates[estimateKey{estimateInstall, "", string(d.Kind)}].Typical(sched.PriorInstall)
			d.Reset = estimates[estimateKey{estimateReset, "", string(d.Kind)}].Typical(sched.PriorReset)
			devices = append(devices, d)
			return err
		}, `select id, kind, minute_price from devices where worker_id <> '' order by id`)
		if err != nil {
			return err
		}
		return query(func(row scanner) error {
			var o Share
			var permille int64
			var maxCost money
			err := row.Scan(&o.OrgID, &permille, &o.MaxDevices, (*int64)(&maxCost))
			o.Weight, o.MaxCost = float64(permille)/1000, maxCost.units()
			shares = append(shares, o)
			return err
		}, `select id, weight_permille, max_devices, max_cost from organizations where $1 = '' or id = $1 order by id`, org)
	})
	return devices, shares, err
}

// EstimateErrors returns, by kind of estimate, how far expected times were off lately, from 0 to 1: a mean over the
// estimates of that kind, each weighing as much as the observations that it stands on. A kind of which nothing was
// observed is absent.
func (s *Store) EstimateErrors(ctx context.Context) (map[string]float64, error) {
	off := map[string]float64{}
	err := s.snapshot(ctx, func(query queryFunc) error {
		clear(off)
		seen := map[string]float64{}
		err := readEstimates(query, func(key estimateKey, e sched.Estimate) {
			if key.name == "" { // all specs of an organization: a prior, by which nothing that is known is expected
				return
			}
			n := float64(len(e.RecentMS))
			seen[key.kind] += n
			off[key.kind] += n * e.Error
		})
		for kind, n := range seen {
			off[kind] /= max(n, 1)
		}
		return err
	})
	return off, err
}

func readEstimates(query queryFunc, f func(estimateKey, sched.Estimate)) error {
	return query(func(row scanner) error {
		var key estimateKey
		var value string
		if err := row.Scan(&key.kind, &key.org, &key.name, &value); err != nil {
			return err
		}
		var e sched.Estimate
		if err := json.Unmarshal([]byte(value), &e); err != nil {
			return fmt.Errorf("read an estimate of %s times: %w", key.kind, err)
		}
		f(key, e)
		return nil
	}, `select kind, org_id, name, value from estimates`)
}
