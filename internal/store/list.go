package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
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
		seqs, err := f.newest(query, orgs, low, high)
		if err != nil || len(seqs) == 0 {
			return err
		}
		return query(func(row scanner) error {
			j, err := scanJob(row)
			if err == nil {
				jobs = append(jobs, j.Job)
			}
			return err
		}, `select `+jobColumns+` from jobs j, runs r where r.seq = j.run_seq and j.seq in (`+parameters(len(seqs))+`) order by j.seq desc`, seqs...)
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

// newest returns the sequences of a page and one job more, newest first. Where the sequence alone orders the
// page it is one range; otherwise it is the newest of one range per organization, target and state.
func (f JobFilter) newest(query queryFunc, orgs []string, low, high int64) ([]any, error) {
	var seqs []int64
	add := func(row scanner) error {
		var seq int64
		err := row.Scan(&seq)
		seqs = append(seqs, seq)
		return err
	}
	if f.RunID != "" || (f.OrgID == "" && f.AppVersionID == "" && f.State == "" && f.Target == "") {
		text, args := f.bySequence(low, high)
		if err := query(add, text, args...); err != nil {
			return nil, err
		}
	} else {
		for some := range slices.Chunk(orgs, organizationsAtOnce) {
			text, args := f.byRanges(some, low, high)
			if err := query(add, text, args...); err != nil {
				return nil, err
			}
		}
		slices.SortFunc(seqs, func(a, b int64) int { return cmp.Compare(b, a) })
	}
	page := make([]any, min(len(seqs), f.Limit+1))
	for i := range page {
		page[i] = seqs[i]
	}
	return page, nil
}

// organizationsAtOnce keeps a statement well under the 500 terms that SQLite takes in a compound select: an
// organization has 28 ranges.
const organizationsAtOnce = 8

func (f JobFilter) bySequence(low, high int64) (string, []any) {
	where := `seq >= $1 and seq < $2`
	args := []any{low, high, f.Limit + 1}
	for _, c := range []struct{ column, value string }{
		{"org_id", f.OrgID}, {"app_version_id", f.AppVersionID}, {"state", string(f.State)}, {"target", string(f.Target)},
	} {
		if c.value != "" {
			args = append(args, c.value)
			where += fmt.Sprintf(" and %s = $%d", c.column, len(args))
		}
	}
	return `select seq from jobs where ` + where + ` order by seq desc limit $3`, args
}

func (f JobFilter) byRanges(orgs []string, low, high int64) (string, []any) {
	args := []any{-low, -high, f.Limit + 1}
	arg := func(v any) string {
		args = append(args, v)
		return fmt.Sprintf("$%d", len(args))
	}
	states, targets := qgjob.JobStates, qgjob.Targets
	if f.State != "" {
		states = []qgjob.JobState{f.State}
	}
	if f.Target != "" {
		targets = []qgjob.Target{f.Target}
	}
	app, order := "", "-seq" // the order of jobs_of_organization
	if f.AppVersionID != "" {
		app, order = " and app_version_id = "+arg(f.AppVersionID), "0 - seq" // of jobs_of_app_version
	}
	var ranges []string
	for _, org := range orgs {
		where := "org_id = " + arg(org) + app
		for _, target := range targets {
			for _, state := range states {
				ranges = append(ranges, fmt.Sprintf(
					`select seq from (select seq from jobs where %s and target = %s and state = %s and %[4]s <= $1 and %[4]s > $2 order by %[4]s limit $3) as r%[5]d`,
					where, arg(target), arg(state), order, len(ranges)))
			}
		}
	}
	return `select seq from (` + strings.Join(ranges, " union all ") + `) as ranges order by seq desc limit $3`, args
}

func parameters(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("$%d", i+1)
	}
	return strings.Join(names, ", ")
}
