package store

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"qgjob"
)

// What makes a page, a claim and a lane's next oldest cheap at a million jobs is that they go through the
// indexes made for them, also where statistics make the primary key look good: here almost every job is alike.
func TestPlansStayOnTheirIndexes(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		sub := submission("acme", "v1")
		for range 2000 {
			sub.Jobs = append(sub.Jobs, JobSpec{TestPath: "tests/a.spec.js", Priority: 1, Target: qgjob.TargetAny})
		}
		must(t, 0, third(q.Submit(t.Context(), sub)))
		must(t, 0, q.write(t.Context(), func(ctx context.Context, t *tx) error { return t.exec(ctx, "analyze") }))
		l := lane{org: "acme", appVersion: "v1", target: qgjob.TargetAny, priority: 1}
		list, listArgs := JobFilter{Limit: 50}.byRanges([]string{"acme"}, 0, 1<<62)
		listApp, listAppArgs := JobFilter{Limit: 50, AppVersionID: "v1"}.byRanges([]string{"acme"}, 0, 1<<62)
		claim := append(append([]any{0}, l.columns()...), 1, 5)
		shrink := append(l.columns(), 1)
		bulkArgs := func(b *bulk, row []any) []any {
			if q.d.setwise {
				return b.arrays([][]any{row})
			}
			return values(row)
		}
		for _, c := range []struct {
			text  string
			args  []any
			index string
		}{
			{list, values(listArgs), "jobs_of_organization"},
			{listApp, values(listAppArgs), "jobs_of_app_version"},
			{q.d.claim.sql(q.d), bulkArgs(q.d.claim, claim), "jobs_in_lane"},
			{shrinkLanes.sql(q.d), bulkArgs(shrinkLanes, shrink), "jobs_in_lane"},
		} {
			plan := explain(t, q, c.text, c.args)
			if !strings.Contains(plan, c.index) || strings.Contains(plan, "jobs_pkey") || strings.Contains(plan, "INTEGER PRIMARY KEY") ||
				strings.Contains(plan, "Scan on jobs") || strings.Contains(plan, "SCAN jobs") {
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
