package store

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
)

// checkCounters compares everything that is counted with a recount.
func checkCounters(t testing.TB, q *queue) {
	t.Helper()
	if err := recount(context.WithoutCancel(t.Context()), q.Store); err != nil {
		t.Fatal(err)
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
			`select org_id || ' ' || app_version_id || ' ' || target || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, queued from lanes where queued > 0`,
			`select org_id || ' ' || app_version_id || ' ' || target || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, count(*) from jobs
				where state = 'queued' group by org_id, app_version_id, target, priority, prefer_device, avoid_device`,
		},
		"oldest by lane": {
			`select org_id || ' ' || app_version_id || ' ' || target || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, oldest_seq from lanes where queued > 0`,
			`select org_id || ' ' || app_version_id || ' ' || target || ' ' || priority || ' ' || prefer_device || ' ' || avoid_device, min(seq) from jobs
				where state = 'queued' group by org_id, app_version_id, target, priority, prefer_device, avoid_device`,
		},
		"events by job": {
			`select seq || '', events from jobs`,
			`select job_seq || '', case when count(*) = max(seq) and min(seq) = 1 then count(*) else -1 end from events group by job_seq`,
		},
		"attempts by job": {
			`select seq || '', attempts from jobs where attempts > 0`,
			`select job_seq || '', case when count(*) = max(number) and min(number) = 1 then count(*) else -1 end from attempts group by job_seq`,
		},
		"jobs that run have one open attempt": {
			`select seq || '', 1 from jobs where state in ('running', 'canceling')`,
			`select job_seq || '', count(*) from attempts where outcome = '' group by job_seq`,
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
