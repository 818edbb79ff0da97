package store

import (
	"context"
	"encoding/json"
	"fmt"

	"qgjob"
	"qgjob/internal/flaky"
)

// executionsOf is how many of an organization's newest jobs tell the history of its tests.
const executionsOf = 2000

var selectExecutions = byJobs(`
	select j.test_path, r.id, r.bundle_sha256, r.build_sha256, coalesce(f.commit_id, ''), a.report, a.assigned_at_ms
	from jobs j
		join attempts a on {of j}
		join runs r on r.seq = j.run_seq
		left join run_facts f on f.run_seq = r.seq
	where {seq} in (select seq from jobs where org_id = $1 order by -seq limit $2)
		and a.outcome in ('passed', 'failed', 'timed_out') and a.report <> ''`)

// Executions returns the executions of an organization's tests in its newest jobs. A code state is a test
// project and a build; of a project that did not travel with its job, the commit stands for it.
func (s *Store) Executions(ctx context.Context, org string) ([]flaky.Execution, error) {
	var list []flaky.Execution
	err := s.query(ctx, func(row scanner) error {
		var spec, run, bundle, build, commit, report string
		var assigned int64
		if err := row.Scan(&spec, &run, &bundle, &build, &commit, &report, &assigned); err != nil {
			return err
		}
		var r qgjob.Report
		if err := json.Unmarshal([]byte(report), &r); err != nil {
			return fmt.Errorf("read a report of run %s: %w", run, err)
		}
		project := bundle
		if project == "" {
			project = "commit " + commit
			if commit == "" {
				project = "run " + run
			}
		}
		for _, t := range r.Tests {
			if t.Status == qgjob.TestSkipped || t.Status == qgjob.TestInterrupted {
				continue
			}
			list = append(list, flaky.Execution{
				Spec: spec, Title: t.Title, CodeState: project + "/" + build, Passed: t.Status == qgjob.TestPassed, At: at(assigned),
			})
		}
		return nil
	}, selectExecutions, org, executionsOf)
	return list, err
}

// Quarantine lets a test run without counting. One that is quarantined already keeps its beginning.
func (s *Store) Quarantine(ctx context.Context, q qgjob.Quarantine) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		return t.exec(ctx, `
			insert into quarantine (org_id, test_path, title, by_rule, reason, since_ms) values ($1, $2, $3, $4, $5, $6)
			on conflict (org_id, test_path, title) do update set by_rule = excluded.by_rule, reason = excluded.reason`,
			q.OrgID, q.TestPath, q.Title, q.ByRule, q.Reason, t.now)
	})
}

// Release lets a test count again. CodeNotFound: it is not quarantined.
func (s *Store) Release(ctx context.Context, org, testPath, title string) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		found := false
		err := t.query(ctx, func(row scanner) error {
			found = true
			return row.Scan(new(int64))
		}, `select since_ms from quarantine where org_id = $1 and test_path = $2 and title = $3`, org, testPath, title)
		if err != nil {
			return err
		}
		if !found {
			return qgjob.Errorf(qgjob.CodeNotFound, "test %q of %s is not quarantined", title, testPath)
		}
		return t.exec(ctx, `delete from quarantine where org_id = $1 and test_path = $2 and title = $3`, org, testPath, title)
	})
}

// Quarantined returns an organization's quarantined tests. An empty org is any organization.
func (s *Store) Quarantined(ctx context.Context, org string) ([]qgjob.Quarantine, error) {
	list := []qgjob.Quarantine{}
	err := s.query(ctx, func(row scanner) error {
		var q qgjob.Quarantine
		var since int64
		err := row.Scan(&q.OrgID, &q.TestPath, &q.Title, &q.ByRule, &q.Reason, &since)
		q.Since = at(since)
		list = append(list, q)
		return err
	}, `
		select org_id, test_path, title, by_rule, reason, since_ms from quarantine
		where ($1 = '' or org_id = $1) order by org_id, test_path, title`, org)
	return list, err
}

// Organizations returns those that ever submitted.
func (s *Store) Organizations(ctx context.Context) ([]string, error) {
	var orgs []string
	err := s.query(ctx, func(row scanner) error {
		var org string
		err := row.Scan(&org)
		orgs = append(orgs, org)
		return err
	}, `select distinct org_id from counters where org_id <> '' order by org_id`)
	return orgs, err
}

// excuse marks a result's failed tests that are quarantined, and notes on the job when they are all that
// failed: the attempt then passes it.
func (t *tx) excuse(ctx context.Context, j *job, r qgjob.Result) (qgjob.Result, error) {
	j.excused = false
	if r.Outcome != qgjob.OutcomeFailed && r.Outcome != qgjob.OutcomeTimedOut {
		return r, nil
	}
	titles := map[string]bool{}
	err := t.query(ctx, func(row scanner) error {
		var title string
		err := row.Scan(&title)
		titles[title] = true
		return err
	}, `select title from quarantine where org_id = $1 and test_path = $2`, j.OrgID, j.TestPath)
	if err != nil || len(titles) == 0 {
		return r, err
	}
	r, excused, counted := r.Excuse(func(title string) bool { return titles[title] })
	if excused > 0 && j.State == qgjob.Running {
		j.excused, j.Quarantined = true, excused
		j.Cause = ""
		if counted == 0 {
			j.Cause = qgjob.CauseAllTestsQuarantined
		}
	}
	return r, nil
}
