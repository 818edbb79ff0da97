package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"qgjob"
)

// What makes a page and a claim cheap at a million jobs is that they go through the
// indexes made for them, also where statistics make the primary key look good: here almost every job is alike.
func TestPlansStayOnTheirIndexes(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		sub := submission("acme", "v1")
		for range 2000 {
			sub.Jobs = append(sub.Jobs, JobSpec{TestPath: "tests/a.spec.js", Priority: 1, Target: qgjob.TargetAny})
		}
		must(t, 0, third(q.Submit(t.Context(), sub)))
		must(t, 0, q.write(t.Context(), func(ctx context.Context, t *tx) error { return t.exec(ctx, "analyze") }))
		list, listArgs := JobFilter{Limit: 50, OrgID: "acme"}.walk(0, 1<<62)
		listApp, listAppArgs := JobFilter{Limit: 50, OrgID: "acme", AppVersionID: "v1"}.walk(0, 1<<62)
		heads := []any{1, 0, 5}
		type query struct {
			text  string
			args  []any
			index string // on SQLite and on PostgreSQL
		}
		queries := []query{
			{list, values(listArgs), "jobs_of_organization"},
			{listApp, values(listAppArgs), "jobs_of_app_version"},
			{selectBranchVerdicts, values([]any{"acme", "", "", runsLookedAt}), "run_facts_of_branch"},
			{selectHeads.forRow(), values(heads), map[bool]string{false: "SEARCH queue USING PRIMARY KEY", true: "queue_pkey"}[q.d.setwise]},
		}
		queries = append(queries, query{selectLiveOverflows, nil, map[bool]string{false: "SCALAR SUBQUERY", true: "SubPlan"}[q.d.setwise]})
		if q.d.setwise {
			text, args := selectHeads.forRows([][]any{heads, heads})
			queries = append(queries, query{text, args, "queue_pkey"})
		}
		for _, c := range queries {
			plan := explain(t, q, c.text, c.args)
			if !strings.Contains(plan, c.index) || strings.Contains(plan, "Seq Scan") || strings.Contains(plan, "SCAN jobs") {
				t.Errorf("%s\ndoes not go through %s:\n%s", c.text, c.index, plan)
			}
		}
	})
}

// Attempts are found by their id or by their job among those that were not its first, also by a plan that was made while there were none.
func TestPlansFindAttemptsByTheirJob(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		past, pastArgs := HistoryFilter{Limit: 100}.page(7)
		pastOf, pastOfArgs := HistoryFilter{Limit: 100, OrgID: "acme"}.page(7)
		type query struct {
			text string
			args []any
		}
		executions := query{selectExecutions, []any{"acme", executionsOf}}
		queries := []query{
			{selectChoices.first, []any{"a5.1"}},
			{selectChoices.others, []any{5}},
			{selectLogged.first, []any{"a5.1", 0}},
			{selectLogged.others, []any{5, 0}},
			{selectAttemptsOfJob.first, []any{"a5.1"}},
			{selectAttemptsOfJob.others, []any{5}},
			{selectEvents.first, []any{"a5.1", 0}},
			{selectEvents.others, []any{5, 0}},
			{selectAttemptsOfRun, []any{1, 2001}},
			{past, pastArgs},
			{pastOf, pastOfArgs},
		}
		check := func(when string, queries ...query) {
			t.Helper()
			for _, c := range queries {
				plan := explain(t, q, c.text, c.args)
				if bad := walked(plan, "jobs", "attempts"); bad != "" {
					t.Errorf("%s: %s\n%s\nhas the plan\n%s", when, bad, c.text, plan)
				}
			}
		}
		check("empty", append(queries, executions)...)
		q.worker("w", "p1", "p2", "p3")
		sub := submission("acme", "v1")
		for range 2000 {
			sub.Jobs = append(sub.Jobs, JobSpec{TestPath: "tests/a.spec.js", Priority: 1, Target: qgjob.TargetAny})
		}
		for _, org := range []string{"acme", "zeta", "zeta"} {
			sub.OrgID = org
			must(t, 0, third(q.Submit(t.Context(), sub)))
		}
		attempt := func(number, of string) {
			must(t, 0, q.write(t.Context(), func(ctx context.Context, t *tx) error {
				for _, text := range []string{
					`update jobs set state = 'passed', first_attempt = 'a' || seq || '.1', attempts = ` + number + ` where ` + of,
					`insert into attempts (id, job_seq, number, org_id, worker_id, device_id, token, reason, assigned_at_ms, expires_at_ms, ended_at_ms, outcome, report)
						select 'a' || seq || '.' || attempts, seq, attempts, org_id, 'w', 'd', '', '', 1, 2, 2, 'passed', '{}' from jobs where ` + of,
					"analyze",
				} {
					if err := t.exec(ctx, text); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		attempt("1", "true")
		check("none again", queries...) // an index that is known to be empty may be walked
		attempt("2", "seq % 10 = 0")
		attempt("3", "seq % 10 = 0")
		check("some again", append(queries, executions)...)
		for _, c := range []query{{selectOpen, nil}, {selectOpenOfWorker, []any{"w"}}} {
			plan := explain(t, q, c.text, c.args)
			if bad := walked(plan, "jobs", "attempts", "runs"); bad != "" {
				t.Errorf("%s\n%s\nhas the plan\n%s", bad, c.text, plan)
			}
		}
	})
}

// walked says where a plan goes through tables without looking them up, or sorts. Devices (d) are few.
func walked(plan string, tables ...string) string {
	lines := strings.Split(plan, "\n")
	for i, line := range lines[:len(lines)-1] {
		ofThem := slices.ContainsFunc(tables, func(table string) bool { return strings.Contains(line, " on "+table+" ") })
		switch {
		case strings.Contains(line, "SCAN") && line != "SCAN way" && line != "SCAN d", strings.Contains(line, "AUTOMATIC"): // of SQLite
			return line
		case strings.Contains(line, "Sort"), ofThem && !strings.Contains(lines[i+1], "Index Cond"): // of PostgreSQL
			return strings.TrimSpace(line)
		}
	}
	return ""
}

func explain(t *testing.T, q *queue, text string, args []any) string {
	t.Helper()
	prefix := "explain "
	if q.Kind() == "sqlite" {
		prefix = "explain query plan "
	}
	rows, err := q.readDB.QueryContext(t.Context(), prefix+text, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var plan strings.Builder
	for rows.Next() {
		line := make([]any, len(columns))
		dest := make([]any, len(columns))
		for i := range line {
			dest[i] = &line[i]
		}
		if err := rows.Scan(dest...); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&plan, line[len(line)-1])
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan.String()
}
