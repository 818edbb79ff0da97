package store

import (
	"cmp"
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// Names of counters.
const (
	jobsSubmitted     = "jobs"      // of no organization: the sequence of the newest job
	jobsIn            = "jobs/"     // + state
	attemptsOf        = "attempts/" // + outcome/cause
	installsDone      = "installs"
	installsSaved     = "installs_saved"
	cloudCost         = "cloud_cost" // in millionths
	artifactBytes     = "artifact_bytes"
	predictionsJudged = "predictions"
	startedByP50      = "predictions_by_p50"
	startedByP90      = "predictions_by_p90"
	workerSeen        = "worker_seen_ms" // when a worker that is gone was last heard of
)

// Devices returns the devices of live workers, without what they run and have installed of organizations other than org. An empty org is every
// organization.
func (s *Store) Devices(ctx context.Context, org string) ([]qgjob.Device, error) {
	devices := []qgjob.Device{}
	err := s.query(ctx, func(row scanner) error {
		var d qgjob.Device
		var app qgjob.App
		var seen int64
		var tags, runs string
		err := row.Scan(&d.ID, &d.Serial, &d.Kind, &d.Platform, &d.Model, &d.OSVersion, &d.State, &d.Message, &d.WorkerID, &tags, &d.Host, &d.JobID, &runs,
			&app.OrgID, &app.AppVersionID, &app.BuildSHA256, &d.Installs, &d.InstallsSaved, &seen,
			&d.ScreenWidth, &d.ScreenHeight, &d.BatteryPercent, &d.FreeStorage, &d.ABIs)
		if d.JobID != "" && d.State == qgjob.DeviceIdle {
			d.State = qgjob.DeviceBusy
		}
		if app.OrgID != "" && (org == "" || app.OrgID == org) {
			d.Installed = &app
		}
		if org != "" && runs != org {
			d.JobID = ""
		}
		d.Tags, d.SeenAt = words(tags), at(seen)
		devices = append(devices, d)
		return err
	}, `
		select d.id, d.serial, d.kind, d.platform, d.model, d.os_version, d.state, d.message, d.worker_id, d.tags, d.host, coalesce(j.id, ''), coalesce(j.org_id, ''),
			d.installed_org_id, d.installed_app_version_id, d.installed_build_sha256, d.installs, d.installs_saved, d.seen_at_ms,
			d.screen_width, d.screen_height, d.battery_percent, d.free_storage, d.abis
		from devices d
		left join attempts a on a.id = d.attempt_id
		left join jobs j on j.seq = a.job_seq
		where d.worker_id <> '' order by d.id`)
	return devices, err
}

// Queue returns what waits, in the order in which it is served, and how many jobs run. An empty org is every
// organization.
func (s *Store) Queue(ctx context.Context, org string) (lanes []Lane, running int, err error) {
	lanes = []Lane{}
	err = s.snapshot(ctx, func(query queryFunc) error {
		now, err := s.readClock(query)
		if err != nil {
			return err
		}
		err = query(func(row scanner) error {
			var l Lane
			var oldest int64
			err := row.Scan(&l.OrgID, &l.AppVersionID, &l.Target, &l.Requires, &l.Priority, &l.Queued, &oldest)
			l.Waited = since(oldest, now)
			l.Level = sched.Level(l.Priority, l.Waited, sched.DefaultBound)
			lanes = append(lanes, l)
			return err
		}, `
			select org_id, app_version_id, target, requires, priority, sum(queued), min(oldest_at_ms)
			from lanes where queued > 0 and ($1 = '' or org_id = $1)
			group by org_id, app_version_id, target, requires, priority
			order by priority, min(oldest_seq)`, org)
		if err != nil {
			return err
		}
		return query(func(row scanner) error { return row.Scan(&running) }, `
			select cast(coalesce(sum(value), 0) as bigint) from counters
			where ($1 = '' or org_id = $1) and name in ('`+jobsIn+`running', '`+jobsIn+`canceling')`, org)
	})
	slices.SortStableFunc(lanes, func(a, b Lane) int { return cmp.Compare(a.Level, b.Level) })
	return lanes, running, err
}

func since(ms, now int64) time.Duration { return max(0, time.Duration(now-ms)*time.Millisecond) }

// Stats is cheap at any number of jobs.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	st := Stats{
		Jobs: map[qgjob.JobState]int64{}, Devices: map[qgjob.DeviceState]int{}, Attempts: map[AttemptKind]int64{},
	}
	for _, state := range qgjob.JobStates {
		st.Jobs[state] = 0
	}
	err := s.snapshot(ctx, func(query queryFunc) error {
		now, err := s.readClock(query)
		if err != nil {
			return err
		}
		var lastSeen int64
		err = query(func(row scanner) error {
			var name string
			var value int64
			err := row.Scan(&name, &value)
			switch {
			case strings.HasPrefix(name, jobsIn):
				st.Jobs[qgjob.JobState(name[len(jobsIn):])] = value
			case strings.HasPrefix(name, attemptsOf):
				outcome, cause, _ := strings.Cut(name[len(attemptsOf):], "/")
				st.Attempts[AttemptKind{qgjob.Outcome(outcome), qgjob.Cause(cause)}] = value
			case name == installsDone:
				st.Installs = value
			case name == installsSaved:
				st.InstallsSaved = value
			case name == cloudCost:
				st.CloudCost = money(value).units()
			case name == predictionsJudged:
				st.Predictions.Judged = value
			case name == startedByP50:
				st.Predictions.ByP50 = value
			case name == startedByP90:
				st.Predictions.ByP90 = value
			case name == workerSeen:
				lastSeen = value
			}
			return err
		}, `select name, cast(sum(value) as bigint) from counters group by name`)
		if err != nil {
			return err
		}
		if err := st.readOldest(query, now); err != nil {
			return err
		}
		return st.readFleet(query, now, lastSeen, s.lease)
	})
	return st, err
}

func (st *Stats) readOldest(query queryFunc, now int64) error {
	return query(func(row scanner) error {
		var oldest sql.NullInt64
		err := row.Scan(&oldest)
		if oldest.Valid {
			st.OldestQueued = since(oldest.Int64, now)
		}
		return err
	}, `select min(oldest_at_ms) from lanes where queued > 0`)
}

// readFleet reads workers and devices. lastSeen is when a worker that is gone was last heard of.
func (st *Stats) readFleet(query queryFunc, now, lastSeen int64, lease time.Duration) error {
	err := query(func(row scanner) error {
		var seen int64
		err := row.Scan(&seen)
		if seen+lease.Milliseconds() > now {
			st.WorkersAlive++
		}
		lastSeen = max(lastSeen, seen)
		return err
	}, `select seen_at_ms from workers`)
	if err != nil {
		return err
	}
	if lastSeen > 0 {
		st.WorkerSeen, st.LastSeen = true, since(lastSeen, now)
	}
	return query(func(row scanner) error {
		var state qgjob.DeviceState
		var busy bool
		var n int
		err := row.Scan(&state, &busy, &n)
		if busy && state == qgjob.DeviceIdle {
			state = qgjob.DeviceBusy
		}
		st.Devices[state] += n
		return err
	}, `
		select state, attempt_id <> '' as busy, count(*) from devices
		where worker_id <> '' group by state, busy`)
}
