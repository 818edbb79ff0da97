package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"qgjob"
)

type submitCall struct {
	Submission // as it is decided on
	asked      Submission
	run        qgjob.Run // when created
	known      string    // id of the run that the key names, when not created
	created    bool
	key        buildKey // what knownBuilds looked up for it
}

var submits = &step{order: submitStep, reads: submitReads, run: runSubmits}

// Submit makes a run, or returns the one that the idempotency key names (created is false).
func (s *Store) Submit(ctx context.Context, sub Submission) (run qgjob.Run, created bool, err error) {
	if len(sub.Jobs) == 0 {
		return qgjob.Run{}, false, qgjob.Errorf(qgjob.CodeInvalid, "the submit holds no jobs: name at least one test")
	}
	c := &submitCall{asked: sub}
	if err := s.writer.do(ctx, submits, c, 1+len(sub.Jobs)); err != nil {
		return qgjob.Run{}, false, err
	}
	if c.created {
		return c.run, true, nil
	}
	run, err = s.Run(ctx, sub.OrgID, c.known)
	return run, false, err
}

// knownKey is what is remembered of an idempotency key.
type knownKey struct {
	bodyHash  string
	runID     string
	runSeq    int64
	jobs      int
	submitted int64 // in milliseconds
	judged    bool
	over      bool // the run ended, and did not pass
}

type orgKey struct{ org, key string }

type appVersion struct{ org, id string }

// newestBuild stands for a build that the submission leaves open.
const newestBuild = ""

// newestOf is an app version's newest build for a platform, "" for any.
type newestOf struct {
	appVersion
	platform string
}

type buildKey struct {
	newestOf
	sha256 string
}

// builtFor is a build, and what it asks of a device.
type builtFor struct {
	sha256, platform, minOS string
	abis                    []string
	kind                    qgjob.Target
}

var (
	selectKeys = newBulk("tt", `
		select r.org_id, r.idempotency_key, r.body_hash, r.id, r.seq, r.jobs, r.submitted_at_ms
		{from,} {lateral} (select * from runs where org_id = {1} and idempotency_key = {2} and idempotency_key <> '' limit 1) r`)
	selectNewestBuild = newBulk("ttt", `
		select {1}, {2}, {3}, sha256, platform, min_os, abis, kind {from,} builds b
		where b.org_id = {1} and b.app_version_id = {2}
			and b.number = (select max(n.number) from builds n where n.org_id = {1} and n.app_version_id = {2} and ({3} = '' or n.platform = {3}))`)
	selectBuild = newBulk("tttt", `
		select {1}, {2}, {3}, sha256, platform, min_os, abis, kind {from,} builds b where b.org_id = {1} and b.app_version_id = {2} and b.sha256 = {4}`)
)

// submitReads looks up the idempotency keys of a batch, and lets it begin afresh.
func submitReads(t *tx, calls []*call) []read {
	t.keys = map[orgKey]*knownKey{}
	for _, c := range calls {
		sub := c.arg.(*submitCall)
		sub.Submission = sub.asked
	}
	keys := t.keysOf(calls)
	keys.skipped = &t.keysSkipped
	return []read{keys}
}

// keysOf reads what the idempotency keys of calls name.
func (t *tx) keysOf(calls []*call) read {
	asked := map[orgKey]struct{}{}
	var rows [][]any
	for _, c := range calls {
		sub := c.arg.(*submitCall)
		key := orgKey{sub.OrgID, sub.IdempotencyKey}
		if _, twice := asked[key]; twice || sub.IdempotencyKey == "" {
			continue
		}
		asked[key] = struct{}{}
		rows = append(rows, []any{key.org, key.key})
	}
	return read{b: selectKeys, rows: rows, scan: func(row scanner) error {
		var key orgKey
		known := &knownKey{}
		err := row.Scan(&key.org, &key.key, &known.bodyHash, &known.runID, &known.runSeq, &known.jobs, &known.submitted)
		t.keys[key] = known
		return err
	}}
}

func runSubmits(ctx context.Context, t *tx, calls []*call) error {
	if err := t.judgeKeys(ctx, calls); err != nil {
		return err
	}
	builds, err := t.knownBuilds(ctx, calls)
	if err != nil {
		return err
	}
	if err := t.knownUploads(ctx, calls, builds); err != nil {
		return err
	}
	var fresh []*submitCall
	jobs := 0
	for _, c := range calls {
		sub := c.arg.(*submitCall)
		sub.run, sub.known, sub.created = qgjob.Run{}, "", false
		err := t.admit(ctx, sub, builds)
		if err != nil && t.keysSkipped && sub.IdempotencyKey != "" { // it may name a run that was made when there was nothing to refuse
			if err := queryBulk(ctx, t.s, t.keysOf([]*call{c})); err != nil {
				return err
			}
			if err := t.judgeKeys(ctx, []*call{c}); err != nil {
				return err
			}
			sub.Submission = sub.asked
			err = t.admit(ctx, sub, builds)
		}
		if _, refused := errors.AsType[*qgjob.Error](err); err != nil && !refused {
			return err
		}
		if c.err = err; sub.created {
			fresh = append(fresh, sub)
			jobs += len(sub.Jobs)
		}
	}
	if jobs == 0 {
		return nil
	}
	for _, sub := range fresh {
		t.longestFirst(sub)
		if err := t.failedFirst(ctx, sub); err != nil {
			return err
		}
	}
	seq := t.b.nextJob
	t.b.nextJob += int64(jobs)
	t.count("", jobsSubmitted, int64(jobs))
	for _, sub := range fresh {
		if err := t.add(sub, seq); err != nil {
			return err
		}
		seq += int64(len(sub.Jobs))
	}
	return nil
}

// admit decides whether a submission makes a run, and prepares it. Keys of the batch are added to the known ones:
// of two calls with one key the first makes the run.
func (t *tx) admit(ctx context.Context, sub *submitCall, builds map[buildKey]builtFor) error {
	key := orgKey{sub.OrgID, sub.IdempotencyKey}
	known := t.keys[key]
	expired := known != nil && known.submitted <= t.now-IdempotencyWindow.Milliseconds()
	if known != nil && !expired {
		if known.bodyHash != sub.BodyHash {
			return qgjob.Errorf(qgjob.CodeConflict,
				"idempotency key %q was used for another request of organization %s: use another key, or send the same request", sub.IdempotencyKey, sub.OrgID)
		}
		if !sub.RepeatFailed || !known.over {
			sub.known = known.runID
			return nil
		}
	}
	build, ok := builds[sub.key]
	if !ok && sub.BuildSHA256 != newestBuild {
		return qgjob.Errorf(qgjob.CodeInvalid, "app version %s has no build %s: upload it first", sub.AppVersionID, sub.BuildSHA256)
	}
	if err := t.uploaded(sub, build.sha256); err != nil {
		return err
	}
	if err := sub.require(build); err != nil {
		return err
	}
	if err := t.checkOverflow(sub); err != nil {
		return err
	}
	if err := t.matched(ctx, sub); err != nil {
		return err
	}
	sub.created = true
	sub.run = qgjob.Run{ID: t.newID(), OrgID: sub.OrgID, AppVersionID: sub.AppVersionID, SubmittedAt: at(t.now), State: qgjob.Queued}
	sub.BuildSHA256 = build.sha256
	sub.run.PreviousID = sub.PreviousID
	if known != nil {
		if !expired {
			sub.run.PreviousID = known.runID
		}
		t.unkeyed = append(t.unkeyed, []any{known.runSeq})
	}
	if sub.IdempotencyKey != "" {
		t.keys[key] = &knownKey{bodyHash: sub.BodyHash, runID: sub.run.ID, submitted: t.now}
	}
	return nil
}

// add collects the rows of a new run.
func (t *tx) add(sub *submitCall, seq int64) error {
	run := &sub.run
	t.use(sub)
	t.runs = append(t.runs, []any{
		seq, run.ID, run.OrgID, run.AppVersionID, run.PreviousID, sub.IdempotencyKey, sub.BodyHash,
		sub.BundleSHA256, sub.BuildSHA256, sub.Project, sub.ConfigPath, len(sub.Jobs), t.now, !sub.Environment.empty(), sub.Video,
	})
	t.addFacts(sub, seq)
	t.addOverflow(sub, seq)
	t.addEnvironment(sub, seq)
	run.Jobs = make([]qgjob.Job, len(sub.Jobs))
	for i, spec := range sub.Jobs {
		j := &job{seq: seq + int64(i), runSeq: seq, fresh: true, expectedMS: t.b.expectedRun(sub.OrgID, spec.TestPath).Milliseconds(), Job: qgjob.Job{
			ID: t.newID(), RunID: run.ID, OrgID: run.OrgID, AppVersionID: run.AppVersionID,
			TestPath: spec.TestPath, Shard: spec.Shard, Priority: spec.Priority, Target: spec.Target, Requires: spec.Requires,
			BundleSHA256: sub.BundleSHA256, BuildSHA256: sub.BuildSHA256, Project: sub.Project, ConfigPath: sub.ConfigPath, Environment: !sub.Environment.empty(), Video: sub.Video,
			SubmittedAt: run.SubmittedAt,
		}}
		if err := t.move(j, qgjob.Submit); err != nil {
			return err
		}
		t.newJobs = append(t.newJobs, j)
		run.Jobs[i] = j.Job
	}
	return nil
}

// judgeKeys finds out which of the runs that keys name are over, where that matters.
func (t *tx) judgeKeys(ctx context.Context, calls []*call) error {
	for _, c := range calls {
		sub := c.arg.(*submitCall)
		known := t.keys[orgKey{sub.OrgID, sub.IdempotencyKey}]
		if known == nil || !sub.RepeatFailed || known.judged {
			continue
		}
		var states []qgjob.JobState
		err := t.query(ctx, func(row scanner) error {
			var state qgjob.JobState
			err := row.Scan(&state)
			states = append(states, state)
			return err
		}, `select state from jobs where seq >= $1 and seq < $2`, known.runSeq, known.runSeq+int64(known.jobs))
		if err != nil {
			return err
		}
		state := qgjob.RunState(states)
		known.over, known.judged = state.IsVerdict() && state != qgjob.Passed, true
	}
	return nil
}

// platform is the one that all jobs of a submission ask for, "" where they do not agree.
func (c *submitCall) platform() string {
	platform := ""
	for i, spec := range c.Jobs {
		requires, err := qgjob.ParseRequirement(spec.Requires)
		if err != nil || i > 0 && requires.Platform != platform {
			return ""
		}
		platform = requires.Platform
	}
	return platform
}

// require lets the jobs of a submission ask for what its build needs: an iOS build for iOS devices, an IPA for iPhones and not for
// simulators, a simulator's app not for BrowserStack, and none for devices whose system is known to be too old or whose processor to be another.
func (c *submitCall) require(build builtFor) error {
	if build.platform == "" {
		return nil
	}
	simulators := build.kind == qgjob.TargetEmulator
	if simulators && c.Deadline > 0 {
		return qgjob.Errorf(qgjob.CodeInvalid, "a deadline lets jobs run on BrowserStack, and build %.12s is for simulators, which BrowserStack has none of: leave it out, or name an IPA with --app", build.sha256)
	}
	c.Jobs = slices.Clone(c.Jobs)
	for i, spec := range c.Jobs {
		requires, err := qgjob.ParseRequirement(spec.Requires)
		if err != nil {
			return err
		}
		if requires.Platform != "" && requires.Platform != build.platform {
			return qgjob.Errorf(qgjob.CodeInvalid, "%s asks for %s, and build %.12s is for %s: name a build for %s with --app, or submit the jobs of each platform by themselves",
				spec.TestPath, requires.Platform, build.sha256, build.platform, requires.Platform)
		}
		if build.platform == qgjob.PlatformIOS {
			requires.Platform = build.platform
		}
		requires.MinOS, requires.ABIs = build.minOS, build.abis
		c.Jobs[i].Requires = requires.String()
		switch {
		case spec.Target == qgjob.TargetBrowserStack && simulators:
			return qgjob.Errorf(qgjob.CodeInvalid, "%s asks for BrowserStack, which has iPhones and no simulators, and build %.12s is for simulators: name an IPA with --app", spec.TestPath, build.sha256)
		case build.kind == "" || spec.Target == qgjob.TargetBrowserStack:
		case spec.Target == qgjob.TargetAny:
			c.Jobs[i].Target = build.kind
		case spec.Target != build.kind:
			return qgjob.Errorf(qgjob.CodeInvalid, "%s asks for target %s, and build %.12s is for target %s: name another build with --app", spec.TestPath, spec.Target, build.sha256, build.kind)
		}
	}
	return nil
}

// knownBuilds looks up the builds that a batch names, and the newest ones of app versions where it names none.
func (t *tx) knownBuilds(ctx context.Context, calls []*call) (map[buildKey]builtFor, error) {
	builds := map[buildKey]builtFor{}
	asked := map[buildKey]bool{}
	var newest, named [][]any
	for _, c := range calls {
		sub := c.arg.(*submitCall)
		sub.key = buildKey{newestOf{appVersion{sub.OrgID, sub.AppVersionID}, sub.platform()}, sub.BuildSHA256}
		key := sub.key
		kept, known := t.b.builds[key.newestOf]
		switch {
		case asked[key]:
		case sub.BuildSHA256 != newestBuild:
			named = append(named, []any{key.org, key.id, key.platform, key.sha256})
		case known:
			builds[key] = kept
		default:
			newest = append(newest, []any{key.org, key.id, key.platform})
		}
		asked[key] = true
	}
	found := func(newest bool) func(row scanner) error {
		return func(row scanner) error {
			var key buildKey
			var build builtFor
			var abis string
			err := row.Scan(&key.org, &key.id, &key.platform, &build.sha256, &build.platform, &build.minOS, &abis, &build.kind)
			build.abis = words(abis)
			if key.sha256 = build.sha256; newest {
				key.sha256 = newestBuild
			}
			builds[key] = build
			return err
		}
	}
	if err := t.queryAll(ctx, selectNewestBuild, newest, found(true)); err != nil {
		return nil, err
	}
	if len(t.b.builds)+len(newest) > buildsKept {
		clear(t.b.builds)
	}
	for _, row := range newest {
		app := newestOf{appVersion{row[0].(string), row[1].(string)}, row[2].(string)}
		t.b.builds[app] = builds[buildKey{app, newestBuild}]
	}
	return builds, t.queryAll(ctx, selectBuild, named, found(false))
}

// longestFirst orders the jobs of a submission by the run time that is expected of them, which shortens the run's
// tail. What is expected alike keeps its order.
func (t *tx) longestFirst(sub *submitCall) {
	if len(sub.Jobs) < 2 {
		return
	}
	sub.Jobs = slices.Clone(sub.Jobs)
	slices.SortStableFunc(sub.Jobs, func(a, b JobSpec) int {
		return cmp.Compare(t.b.expectedRun(sub.OrgID, b.TestPath), t.b.expectedRun(sub.OrgID, a.TestPath))
	})
}

// matched refuses a submission that holds a job which no known device can run, be it of a live worker or of one
// that was. While no device is known nothing can be said.
func (t *tx) matched(ctx context.Context, sub *submitCall) error {
	if sub.AllowUnmatched {
		return nil
	}
	for i, spec := range sub.Jobs {
		if i > 0 && spec.Target == sub.Jobs[i-1].Target && spec.Requires == sub.Jobs[i-1].Requires {
			continue
		}
		requires, err := qgjob.ParseRequirement(spec.Requires)
		if err != nil {
			return err
		}
		fits := func(d qgjob.Traits) bool {
			return (spec.Target.Accepts(d.Kind) || sub.Deadline > 0 && d.Kind == qgjob.TargetBrowserStack) && requires.Mismatch(d) == ""
		}
		live := false
		for _, d := range t.b.devices {
			if live = fits(d.traits()); live {
				break
			}
		}
		if live {
			continue
		}
		known, err := t.knownDevices(ctx)
		if err != nil {
			return err
		}
		if len(known) > 0 && !slices.ContainsFunc(known, fits) {
			return noDevice(spec, requires, known)
		}
	}
	return nil
}

// knownDevices are all that any worker ever had.
func (t *tx) knownDevices(ctx context.Context) ([]qgjob.Traits, error) {
	if t.b.known != nil {
		return t.b.known, nil
	}
	known := []qgjob.Traits{}
	err := t.query(ctx, func(row scanner) error {
		var d deviceState
		err := row.Scan(&d.id, &d.kind, &d.platform, &d.model, &d.osVersion, &d.abis, &d.tags)
		known = append(known, d.traits())
		return err
	}, `select id, kind, platform, model, os_version, abis, tags from devices order by id`)
	if err != nil {
		return nil, err
	}
	t.b.known = known
	return known, nil
}

// mismatchesNamed is how many devices an error describes.
const mismatchesNamed = 3

func noDevice(spec JobSpec, requires qgjob.Requirement, known []qgjob.Traits) error {
	var why []string
	for _, d := range known[:min(len(known), mismatchesNamed)] {
		reason := requires.Mismatch(d)
		if !spec.Target.Accepts(d.Kind) {
			reason = fmt.Sprintf("is a %s, not %s", d.Kind, spec.Target)
		}
		why = append(why, d.ID+" "+reason)
	}
	if more := len(known) - mismatchesNamed; more > 0 {
		why = append(why, fmt.Sprintf("and %d more do not fit", more))
	}
	return qgjob.Errorf(qgjob.CodeUnmatched, "%s: no known device can run it: %s. Start a worker that has such a device, ask for another one, or submit with --allow-unmatched to wait",
		spec.TestPath, strings.Join(why, ", "))
}
