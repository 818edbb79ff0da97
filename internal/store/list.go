package store

import (
	"context"
	"fmt"
	"strings"

	"qgjob"
)

// Pages of jobs.
const (
	defaultPage = 50
	maxPage     = 500
)

// Jobs returns a page of jobs, newest first. next is empty on the last page.
//
// A page costs the same at a thousand and a million jobs, whatever it filters by: the indexes lead with
// organization (and app version), target and state, so the page is the newest of at most 28 index ranges.
func (s *Store) Jobs(ctx context.Context, f JobFilter) (jobs []qgjob.Job, next string, err error) {
	if f.Limit == 0 {
		f.Limit = defaultPage
	}
	f.Limit = min(max(f.Limit, 1), maxPage)
	jobs = []qgjob.Job{}
	err = s.snapshot(ctx, func(query queryFunc) error {
		low, high, err := f.bounds(query)
		if err != nil {
			return err
		}
		orgs, err := f.organizations(query)
		if err != nil || len(orgs) == 0 {
			return err
		}
		text, args := f.statement(orgs, low, high)
		return query(func(row scanner) error {
			j, err := scanJob(row)
			if err == nil {
				jobs = append(jobs, j.Job)
			}
			return err
		}, text, args...)
	})
	if len(jobs) > f.Limit {
		jobs = jobs[:f.Limit]
		next = jobs[f.Limit-1].ID
	}
	return jobs, next, err
}

// bounds returns the range of sequences that the run and the cursor leave: low inclusive, high exclusive.
func (f JobFilter) bounds(query queryFunc) (low, high int64, err error) {
	low, high = 0, 1<<62
	if f.RunID != "" {
		low, high = 0, 0 // an unknown run has no jobs
		err := query(func(row scanner) error {
			var jobs int64
			err := row.Scan(&low, &jobs)
			high = low + jobs
			return err
		}, `select seq, jobs from runs where id = $1 and ($2 = '' or org_id = $2)`, f.RunID, f.OrgID)
		if err != nil {
			return 0, 0, err
		}
	}
	if f.Cursor != "" {
		cursor := int64(-1)
		err := query(func(row scanner) error { return row.Scan(&cursor) },
			`select seq from jobs where id = $1 and ($2 = '' or org_id = $2)`, f.Cursor, f.OrgID)
		if err != nil {
			return 0, 0, err
		}
		if cursor < 0 {
			return 0, 0, qgjob.Errorf(qgjob.CodeInvalid, "cursor %.80q is unknown: use what the page before gave as next", f.Cursor)
		}
		high = min(high, cursor)
	}
	return low, high, nil
}

// organizations lists those whose jobs the filter may select: its own, or every one that has any.
func (f JobFilter) organizations(query queryFunc) ([]string, error) {
	if f.OrgID != "" || f.RunID != "" || (f.AppVersionID == "" && f.State == "" && f.Target == "") {
		return []string{f.OrgID}, nil
	}
	var orgs []string
	err := query(func(row scanner) error {
		var org string
		err := row.Scan(&org)
		orgs = append(orgs, org)
		return err
	}, `
		select distinct org_id from counters
		where org_id <> '' and value > 0 and (name = $1 or ($1 = '`+jobsIn+`' and name like '`+jobsIn+`%'))`, jobsIn+string(f.State))
	return orgs, err
}

// statement selects a page and one job more. Where the sequence alone orders the page it is one range;
// otherwise the newest of one range per organization, target and state.
func (f JobFilter) statement(orgs []string, low, high int64) (string, []any) {
	page := `select ` + jobColumns + ` from jobs j, runs r where r.seq = j.run_seq and `
	args := []any{low, high, f.Limit + 1}
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	bySeq := f.RunID != "" || (f.OrgID == "" && f.AppVersionID == "" && f.State == "" && f.Target == "")
	if bySeq {
		where := `j.seq >= $1 and j.seq < $2`
		for column, value := range map[string]string{
			"org_id": f.OrgID, "app_version_id": f.AppVersionID, "state": string(f.State), "target": string(f.Target),
		} {
			if value != "" {
				where += " and j." + column + " = " + arg(value)
			}
		}
		return page + where + ` order by j.seq desc limit $3`, args
	}
	states, targets := qgjob.JobStates, qgjob.Targets
	if f.State != "" {
		states = []qgjob.JobState{f.State}
	}
	if f.Target != "" {
		targets = []qgjob.Target{f.Target}
	}
	var ranges []string
	for _, org := range orgs {
		where := "org_id = " + arg(org)
		if f.AppVersionID != "" {
			where += " and app_version_id = " + arg(f.AppVersionID)
		}
		for _, target := range targets {
			for _, state := range states {
				ranges = append(ranges, fmt.Sprintf(
					`select seq from (select seq from jobs where %s and target = '%s' and state = '%s' and seq >= $1 and seq < $2 order by seq desc limit $3) as r%d`,
					where, target, state, len(ranges)))
			}
		}
	}
	return page + `j.seq in (select seq from (` + strings.Join(ranges, " union all ") + `) as ranges order by seq desc limit $3) order by j.seq desc`, args
}
