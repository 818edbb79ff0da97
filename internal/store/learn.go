package store

import (
	"encoding/json"
	"math"
	"slices"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// Kinds of estimates.
const (
	estimateRun     = "run"     // of a spec of an organization, or of all its specs
	estimateInstall = "install" // on a kind of device
	estimateReset   = "reset"   // on a kind of device
)

type estimateKey struct{ kind, org, name string }

// orgState is what the scheduler goes by of an organization.
type orgState struct {
	id             string
	weightPermille int64
	maxDevices     int
	usedMS, usedAt int64
	maxCost, cost  money // budget of a month, 0 for none; and what it cost in costMonth
	costMonth      string
}

// used is the device time that counts at a moment.
func (o *orgState) used(now int64) int64 {
	age := time.Duration(max(now-o.usedAt, 0)) * time.Millisecond
	return int64(float64(o.usedMS) * math.Exp2(-float64(age)/float64(sched.FairMemory)))
}

// streakState is which devices a group broke one after another.
type streakState struct {
	devices []string
	last    int64
}

func (b *board) org(id string) *orgState {
	o := b.orgs[id]
	if o == nil {
		o = &orgState{id: id, weightPermille: 1000}
		b.orgs[id] = o
	}
	return o
}

// learned asks for what the board knows of organizations, times and streaks.
func (b *board) learned() []question {
	return []question{
		{`select kind, org_id, name, value from estimates`, func(row scanner) error {
			var key estimateKey
			var value string
			if err := row.Scan(&key.kind, &key.org, &key.name, &value); err != nil {
				return err
			}
			if key == calibrationKey {
				return json.Unmarshal([]byte(value), &b.calibration)
			}
			var e sched.Estimate
			err := json.Unmarshal([]byte(value), &e)
			b.estimates[key] = e
			return err
		}},
		{
			`select id, weight_permille, max_devices, used_ms, used_at_ms, max_cost, cost, cost_month from organizations`,
			func(row scanner) error {
				o := &orgState{}
				err := row.Scan(&o.id, &o.weightPermille, &o.maxDevices, &o.usedMS, &o.usedAt, (*int64)(&o.maxCost), (*int64)(&o.cost), &o.costMonth)
				b.orgs[o.id] = o
				return err
			},
		},
		{`select org_id, app_version_id, target, requires, devices, last_ms from streaks`, func(row scanner) error {
			var g sched.Group
			var devices string
			k := &streakState{}
			if err := row.Scan(&g.OrgID, &g.AppVersionID, &g.Target, &g.Requires, &devices, &k.last); err != nil {
				return err
			}
			b.streaks[g] = k
			return json.Unmarshal([]byte(devices), &k.devices)
		}},
	}
}

// expectedRun is how long a spec is expected to run.
func (b *board) expectedRun(org, spec string) time.Duration {
	return sched.Learned(sched.PriorRun, b.estimates[estimateKey{estimateRun, org, spec}], b.estimates[estimateKey{estimateRun, org, ""}])
}

// expectedInstall is how long an install is expected to take on a kind of device.
func (b *board) expectedInstall(kind qgjob.Target) time.Duration {
	return b.estimates[estimateKey{estimateInstall, "", string(kind)}].Typical(sched.PriorInstall)
}

// expectedReset is how long a reset is expected to take on a kind of device.
func (b *board) expectedReset(kind qgjob.Target) time.Duration {
	return b.estimates[estimateKey{estimateReset, "", string(kind)}].Typical(sched.PriorReset)
}

// observe learns from one more duration.
func (t *tx) observe(key estimateKey, took, prior time.Duration) {
	t.b.estimates[key] = t.b.estimates[key].Observe(took, prior)
	t.estimates[key] = struct{}{}
}

// learn takes in what an attempt's end tells: how long its parts took, how much of a device its organization
// used, and whether its group breaks devices.
func (t *tx) learn(a *attempt, r qgjob.Result, broke bool) {
	j := a.job
	if r.Report.RunMS > 0 && (r.Outcome == qgjob.OutcomePassed || r.Outcome == qgjob.OutcomeFailed) {
		run := time.Duration(r.Report.RunMS) * time.Millisecond
		ofAll := estimateKey{estimateRun, j.OrgID, ""}
		t.observe(estimateKey{estimateRun, j.OrgID, j.TestPath}, run, t.b.estimates[ofAll].Typical(sched.PriorRun))
		t.observe(ofAll, run, sched.PriorRun)
	}
	kind := t.b.devices[a.device].kind
	// At a cloud an install is an upload, once for all of its devices: that most jobs need none is part of what is expected.
	if r.Report.InstallMS > 0 || r.Report.InstallSaved && kind == qgjob.TargetBrowserStack {
		t.observe(estimateKey{estimateInstall, "", string(kind)}, time.Duration(max(r.Report.InstallMS, 1))*time.Millisecond, sched.PriorInstall)
	}
	if r.Report.ResetMS > 0 {
		t.observe(estimateKey{estimateReset, "", string(kind)}, time.Duration(r.Report.ResetMS)*time.Millisecond, sched.PriorReset)
	}
	overflowed := t.overflowed(a)
	if !overflowed { // what is bought takes nothing of others
		o := t.b.org(j.OrgID)
		o.usedMS, o.usedAt = o.used(t.now)+max(t.now-a.assigned, 0), t.now
		t.orgs[o] = struct{}{}
	}

	g := j.group()
	k := t.b.streaks[g]
	switch {
	case broke:
		if k == nil {
			k = &streakState{}
			t.b.streaks[g] = k
		}
		k.last = t.now
		if !slices.Contains(k.devices, a.device) {
			k.devices = append(k.devices, a.device)
		}
		t.streaks[g] = struct{}{}
	case k != nil && !overflowed && (r.Outcome == qgjob.OutcomePassed || r.Outcome == qgjob.OutcomeFailed || r.Outcome == qgjob.OutcomeTimedOut):
		delete(t.b.streaks, g)
		t.streaks[g] = struct{}{}
	}
}

var (
	saveEstimates = newBulk("tttt", `
		insert into estimates (kind, org_id, name, value) {values}
		on conflict (kind, org_id, name) do update set value = excluded.value`)
	saveOrgs = newBulk("tiiiiiit", `
		insert into organizations (id, weight_permille, max_devices, used_ms, used_at_ms, max_cost, cost, cost_month) {values}
		on conflict (id) do update set weight_permille = excluded.weight_permille, max_devices = excluded.max_devices,
			used_ms = excluded.used_ms, used_at_ms = excluded.used_at_ms,
			max_cost = excluded.max_cost, cost = excluded.cost, cost_month = excluded.cost_month`)
	saveStreaks = newBulk("ttttti", `
		insert into streaks (org_id, app_version_id, target, requires, devices, last_ms) {values}
		on conflict (org_id, app_version_id, target, requires) do update set devices = excluded.devices, last_ms = excluded.last_ms`)
	dropStreaks = newBulk("tttt", `
		delete from streaks {using} where org_id = {1} and app_version_id = {2} and target = {3} and requires = {4}`)
)

// learned takes what is to be written of what was learned.
func (t *tx) learned() []statement {
	var estimates, orgs, kept, dropped [][]any
	for key := range t.estimates {
		value := jsonText(t.b.estimates[key])
		if key == calibrationKey {
			value = jsonText(t.b.calibration)
		}
		estimates = append(estimates, []any{key.kind, key.org, key.name, value})
	}
	for o := range t.orgs {
		orgs = append(orgs, []any{o.id, o.weightPermille, o.maxDevices, o.usedMS, o.usedAt, int64(o.maxCost), int64(o.cost), o.costMonth})
	}
	overflows := rowsOfSet(t.overflows, (*overflowState).row)
	for g := range t.streaks {
		row := []any{g.OrgID, g.AppVersionID, g.Target, g.Requires}
		if k := t.b.streaks[g]; k != nil {
			kept = append(kept, append(row, jsonText(k.devices), k.last))
		} else {
			dropped = append(dropped, row)
		}
	}
	clear(t.estimates)
	clear(t.orgs)
	clear(t.streaks)
	clear(t.overflows)
	var statements []statement
	for _, s := range []statement{{saveEstimates, estimates}, {saveOrgs, orgs}, {saveOverflows, overflows}, {saveStreaks, kept}, {dropStreaks, dropped}} {
		if len(s.rows) > 0 {
			statements = append(statements, s)
		}
	}
	return statements
}

// jsonText encodes what always can be encoded.
func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic("store: " + err.Error())
	}
	return string(text)
}

// traits is what a device is to requirements.
func (d *deviceState) traits() qgjob.Traits {
	return qgjob.Traits{ID: d.id, Kind: d.kind, Platform: d.platform, Model: d.model, OSVersion: d.osVersion, ABIs: d.abis, Tags: words(d.tags)}
}

func (j *job) group() sched.Group {
	return sched.Group{OrgID: j.OrgID, AppVersionID: j.AppVersionID, Target: j.Target, Requires: j.Requires}
}
