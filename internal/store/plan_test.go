package store

import (
	"context"
	"fmt"
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
