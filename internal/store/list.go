package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"qgjob"
)

// Pages of jobs.
const (
	defaultPage = 50
	maxPage     = 500
)

// pageWork is how many jobs a page passes over at the most in search of those that its filter selects: every
// page costs about the same, at a thousand jobs and at a million. A page that would pass over more ends early.
const pageWork = 5000

// Jobs returns a page of jobs, newest first. next is empty on the last page. A page may hold fewer jobs than
// asked for, or none, while next is set: those that the filter selects are rare among the newest.
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
		var seqs []any
		text, args := f.walk(low, high)
		err = query(func(row scanner) error {
			var seq int64
			err := row.Scan(&seq)
			seqs = append(seqs, seq)
			return err
		}, text, args...)
		if err != nil {
			return err
		}
		if len(seqs) <= f.Limit {
			if next, err = f.end(query, low, high); err != nil || len(seqs) == 0 {
				return err
			}
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

// way is the index range that a page goes along, newest first, with the columns that the filter looks at.
// Its first two arguments bound it, the third says how many jobs it passes over.
func (f JobFilter) way(columns string, low, high int64) (string, []any) {
	switch {
	case f.RunID != "" || f.OrgID == "":
		return `select ` + columns + ` from jobs where seq >= $1 and seq < $2 order by seq desc limit $3`, []any{low, high, pageWork}
	case f.AppVersionID == "":
		return `select ` + columns + ` from jobs where org_id = $4 and -seq <= $1 and -seq > $2 order by -seq limit $3`,
			[]any{-low, -high, pageWork, f.OrgID}
	}
	return `select ` + columns + ` from jobs where org_id = $4 and app_version_id = $5 and 0 - seq <= $1 and 0 - seq > $2 order by 0 - seq limit $3`,
		[]any{-low, -high, pageWork, f.OrgID, f.AppVersionID}
}

// walk selects the sequences of a page and one job more.
func (f JobFilter) walk(low, high int64) (string, []any) {
	way, args := f.way("seq, org_id, app_version_id, state, target", low, high)
	where := "true"
	for _, c := range []struct{ column, value string }{
		{"org_id", f.OrgID}, {"app_version_id", f.AppVersionID}, {"state", string(f.State)}, {"target", string(f.Target)},
	} {
		if c.value != "" {
			args = append(args, c.value)
			where += fmt.Sprintf(" and %s = $%d", c.column, len(args))
		}
	}
	args = append(args, f.Limit+1)
	return fmt.Sprintf(`select seq from (%s) as way where %s limit $%d`, way, where, len(args)), args
}

// end is the id of the last job that a page passes over; empty when the page passes over all there are.
func (f JobFilter) end(query queryFunc, low, high int64) (string, error) {
	way, args := f.way("id", low, high)
	var last string
	err := query(func(row scanner) error { return row.Scan(&last) }, `select id from (`+way+`) as way limit 1 offset `+strconv.Itoa(pageWork-1), args...)
	return last, err
}

func parameters(n int) string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("$%d", i+1)
	}
	return strings.Join(names, ", ")
}
