package store

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"qgjob"
	"qgjob/internal/sched"
)

// overflowState is a run with a deadline while any of its jobs has no verdict.
type overflowState struct {
	runSeq         int64
	runID          string
	org            string
	deadline       int64 // in milliseconds
	maxCost, spent money // maxCost is 0 when only the organization's budget counts
	live           int   // jobs without a verdict
	closed         string
}

// money is an amount in millionths of the unit that prices are told in.
type money int64

func amount(units float64) money { return money(math.Round(units * 1e6)) }

func (m money) units() float64 { return float64(m) / 1e6 }

var saveOverflows = newBulk("itiiiit", `
	insert into overflows (run_seq, org_id, deadline_ms, max_cost, spent, live, closed) {values}
	on conflict (run_seq) do update set spent = excluded.spent, live = excluded.live, closed = excluded.closed`)

func (o *overflowState) row() []any {
	return []any{o.runSeq, o.org, o.deadline, int64(o.maxCost), int64(o.spent), o.live, o.closed}
}

// selectLiveOverflows is no join: PostgreSQL would walk all runs for it.
const selectLiveOverflows = `
	select o.run_seq, (select r.id from runs r where r.seq = o.run_seq), o.org_id, o.deadline_ms, o.max_cost, o.spent, o.live, o.closed
	from overflows o where o.live > 0`

func (b *board) scanOverflow(row scanner) error {
	o := &overflowState{}
	err := row.Scan(&o.runSeq, &o.runID, &o.org, &o.deadline, (*int64)(&o.maxCost), (*int64)(&o.spent), &o.live, &o.closed)
	b.overflows[o.runSeq] = o
	return err
}

// checkOverflow refuses a deadline that could never do anything.
func (t *tx) checkOverflow(sub *submitCall) error {
	if err := checkBudget(sub.MaxCost); err != nil {
		return err
	}
	if sub.Deadline == 0 || sub.MaxCost > 0 || t.b.org(sub.OrgID).maxCost > 0 {
		return nil
	}
	return qgjob.Errorf(qgjob.CodeInvalid,
		"a deadline lets jobs run on BrowserStack, and there is no budget for that: say what the run may cost (--max-cost), or give %s a budget (qgjob org --org-id=%s --max-cost=...)",
		sub.OrgID, sub.OrgID)
}

func checkBudget(units float64) error {
	if units != 0 && !qgjob.IsBudget(units) {
		return qgjob.Errorf(qgjob.CodeInvalid, "the budget (max_cost) must be from 0.01 to 1000000000, or 0 for none")
	}
	return nil
}

// addOverflow keeps in mind that a new run has a deadline.
func (t *tx) addOverflow(sub *submitCall, seq int64) {
	if sub.Deadline == 0 {
		return
	}
	o := &overflowState{
		runSeq: seq, runID: sub.run.ID, org: sub.OrgID, deadline: t.now + sub.Deadline.Milliseconds(), maxCost: amount(sub.MaxCost), live: len(sub.Jobs),
	}
	t.b.overflows[seq] = o
	t.overflows[o] = struct{}{}
	due := at(o.deadline)
	sub.run.Deadline, sub.run.MaxCost = &due, sub.MaxCost
}

// judged notes that a job has its verdict.
func (t *tx) judged(j *job) {
	o := t.b.overflows[j.runSeq]
	if o == nil {
		return
	}
	if o.live--; o.live == 0 {
		delete(t.b.overflows, j.runSeq)
	}
	t.overflows[o] = struct{}{}
}

// overflowed says whether an attempt runs, for money, on a device that its job did not ask for.
func (t *tx) overflowed(a *attempt) bool {
	return !a.job.Target.Accepts(t.b.devices[a.device].kind)
}

// costs is what an attempt that runs is expected to cost.
func (t *tx) costs(a *attempt) money {
	d := t.b.devices[a.device]
	if d.minutePrice == 0 {
		return 0
	}
	takes := max(time.Duration(a.job.expectedMS)*time.Millisecond+t.b.expectedInstall(d.kind), time.Duration(t.ranUntil(a)-a.assigned)*time.Millisecond)
	return amount(takes.Minutes() * d.minutePrice.units())
}

// cloudIdle is after how long without a command a cloud ends a session.
const cloudIdle = 3 * time.Minute

// ranUntil is until when an attempt may have run: whose lease is over has nobody who drives it.
func (t *tx) ranUntil(a *attempt) int64 { return min(t.now, a.expires+cloudIdle.Milliseconds()) }

// pay books what an attempt cost that ends. Of one whose end its worker has not told nobody knows: it is taken to have cost its time.
func (t *tx) pay(a *attempt, r qgjob.Result, told bool) {
	var cost money
	for _, s := range r.Report.CloudSessions {
		cost += amount(s.Cost)
	}
	if d := t.b.devices[a.device]; !told && d.minutePrice > 0 {
		until := t.now
		if r.Outcome == qgjob.OutcomeLost {
			until = t.ranUntil(a)
		}
		cost = amount((time.Duration(until-a.assigned) * time.Millisecond).Minutes() * d.minutePrice.units())
	}
	if cost <= 0 {
		return
	}
	org := t.b.org(a.org)
	org.cost, org.costMonth = org.costIn(month(t.now))+cost, month(t.now)
	t.orgs[org] = struct{}{}
	t.count(a.org, cloudCost, int64(cost))
	if o := t.b.overflows[a.job.runSeq]; o != nil && t.overflowed(a) {
		o.spent += cost
		t.overflows[o] = struct{}{}
	}
}

// ownFits says whether a device is there that a job asks for.
func (t *tx) ownFits(ctx context.Context, j *job) (bool, error) {
	requires, err := qgjob.ParseRequirement(j.Requires)
	if err != nil {
		return false, err
	}
	known, err := t.knownDevices(ctx)
	return slices.ContainsFunc(known, func(d qgjob.Traits) bool { return j.Target.Accepts(d.Kind) && requires.Mismatch(d) == "" }), err
}

// closeOverflow lets a run overflow no more: what the cloud cannot run says nothing of its own devices.
func (t *tx) closeOverflow(a *attempt, r qgjob.Result) {
	if o := t.b.overflows[a.job.runSeq]; o != nil {
		o.closed = fmt.Sprintf("%s: %s", r.Cause, r.Message)
		t.overflows[o] = struct{}{}
	}
}

// month is the one of a moment, UTC.
func month(ms int64) string { return at(ms).Format("2006-01") }

// costIn is what the organization's jobs cost in a month.
func (o *orgState) costIn(month string) money {
	if o.costMonth != month {
		return 0
	}
	return o.cost
}

// committed is what attempts that run are expected to cost.
func (t *tx) committed(which func(*attempt) bool) (sum money) {
	for _, a := range t.b.open {
		if which(a) {
			sum += t.costs(a)
		}
	}
	return sum
}

// overflowing is the run whose jobs of a lane may overflow; nil when they may not.
func (b *board) overflowing(l *laneState) *overflowState {
	if o := b.overflows[l.runSeq]; o != nil && o.closed == "" {
		return o
	}
	return nil
}

// overflow is how the planner sees that a lane's jobs may overflow; nil when they may not.
func (t *tx) overflow(l *laneState) *sched.Overflow {
	o := t.b.overflowing(l)
	if o == nil {
		return nil
	}
	committed := t.committed(func(a *attempt) bool { return a.job.runSeq == o.runSeq && t.overflowed(a) })
	return &sched.Overflow{Run: o.runID, Deadline: at(o.deadline), MaxCost: o.maxCost.units(), Spent: (o.spent + committed).units()}
}

// readOverflow adds to a run what is known of its deadline.
func readOverflow(query queryFunc, seq int64, run *qgjob.Run) error {
	return query(func(row scanner) error {
		var deadline int64
		var most, spent money
		err := row.Scan(&deadline, (*int64)(&most), (*int64)(&spent), &run.OverflowClosed)
		due := at(deadline)
		run.Deadline, run.MaxCost, run.OverflowCost = &due, most.units(), spent.units()
		return err
	}, `select deadline_ms, max_cost, spent, closed from overflows where run_seq = $1`, seq)
}

// Organization returns what the scheduler goes by of an organization.
func (s *Store) Organization(ctx context.Context, id string) (Organization, error) {
	var found Organization
	err := s.write(ctx, func(_ context.Context, t *tx) error {
		found = Organization{ID: id, WeightPermille: 1000}
		if o := t.b.orgs[id]; o != nil {
			found = Organization{
				ID: id, WeightPermille: o.weightPermille, MaxDevices: o.maxDevices, MaxCost: o.maxCost.units(), Cost: o.costIn(month(t.now)).units(),
			}
		}
		return nil
	})
	return found, err
}

// SetOrganization sets what the scheduler goes by of an organization, but for what it cost.
func (s *Store) SetOrganization(ctx context.Context, set Organization) error {
	if err := checkBudget(set.MaxCost); err != nil {
		return err
	}
	return s.write(ctx, func(_ context.Context, t *tx) error {
		o := t.b.org(set.ID)
		o.weightPermille, o.maxDevices, o.maxCost = set.WeightPermille, set.MaxDevices, amount(set.MaxCost)
		t.orgs[o] = struct{}{}
		t.unplan()
		return nil
	})
}
