package store

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
)

func TestSubmitMakesARun(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		sub := submission("acme", "v1", "tests/a.spec.js", "tests/b.spec.js")
		sub.BundleSHA256, sub.Project, sub.ConfigPath = "bb", "android", "e2e/appwright.config.ts"
		q.bundle("acme", "bb")
		sub.Jobs[1].Priority, sub.Jobs[1].Target = 7, qgjob.TargetEmulator
		made, created, err := q.Submit(t.Context(), sub)
		if err != nil || !created || made.State != qgjob.Queued || len(made.Jobs) != 2 {
			t.Fatalf("created %v: %+v, %v", created, made, err)
		}
		read := must(t, first(q.Run(t.Context(), "acme", made.ID)), nil)
		if fmt.Sprintf("%+v", read) != fmt.Sprintf("%+v", made) {
			t.Fatalf("read\n%+v\nmade\n%+v", read, made)
		}
		if j := read.Jobs[1]; j.Priority != 7 || j.Target != qgjob.TargetEmulator || j.Project != "android" || j.BundleSHA256 != "bb" || j.RunID != made.ID {
			t.Fatalf("job %+v", j)
		}
		if d := q.job(read.Jobs[0].ID); story(d) != "submit>queued" || d.Job.SubmittedAt.IsZero() || len(d.Attempts) != 0 {
			t.Fatalf("job %+v", d)
		}
		_, _, err = q.Submit(t.Context(), submission("acme", "v1"))
		wantCode(t, err, qgjob.CodeInvalid)
	})
}

func TestIdempotencyKeys(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		sub := submission("acme", "v1", "tests/a.spec.js")
		sub.IdempotencyKey, sub.BodyHash = "key", "body"
		submit := func(change func(*Submission)) (qgjob.Run, bool, error) {
			s := sub
			change(&s)
			return q.Submit(ctx, s)
		}
		same := func(*Submission) {}
		made, created, err := submit(same)
		if err != nil || !created {
			t.Fatal(created, err)
		}
		if again, created, err := submit(same); err != nil || created || again.ID != made.ID || len(again.Jobs) != 1 {
			t.Fatalf("the same again: created %v, %+v, %v", created, again, err)
		}
		_, _, err = submit(func(s *Submission) { s.BodyHash = "other" })
		wantCode(t, err, qgjob.CodeConflict)
		if _, created, err := submit(func(s *Submission) { s.OrgID = "zeta" }); err != nil || !created {
			t.Fatalf("another organization's: created %v, %v", created, err)
		}
		q.advance(IdempotencyWindow - time.Minute)
		first(q.Reap(ctx))
		if again, created, _ := submit(same); created || again.ID != made.ID {
			t.Fatal("the key was forgotten within its window")
		}
		q.advance(2 * time.Minute)
		other, created, err := submit(same)
		if err != nil || !created || other.ID == made.ID || other.PreviousID != "" {
			t.Fatalf("after the window: created %v, %+v, %v", created, other, err)
		}
		first(q.Reap(ctx))
		if again, created, _ := submit(same); created || again.ID != other.ID {
			t.Fatal("the new key was forgotten")
		}
		for range 2 {
			if _, created, err := q.Submit(ctx, submission("acme", "v1", "tests/a.spec.js")); err != nil || !created {
				t.Fatalf("without a key: created %v, %v", created, err)
			}
		}
		checkCounters(t, q)
	})
}

func TestRepeatFailedMatchesLiveAndPassedRuns(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		q.worker("w1", "p1")
		sub := submission("acme", "v1", "tests/a.spec.js")
		sub.IdempotencyKey, sub.BodyHash, sub.RepeatFailed = "ci", "body", true
		submit := func(wantCreated bool) qgjob.Run {
			t.Helper()
			run, created, err := q.Submit(ctx, sub)
			if err != nil || created != wantCreated {
				t.Fatalf("created %v, want %v; %v", created, wantCreated, err)
			}
			return run
		}
		one := submit(true)
		submit(false) // queued
		a := q.one("w1", "p1")
		submit(false) // running
		q.report("w1", a.Lease, failed)
		q.report("w1", q.one("w1", "p1").Lease, failed)
		submit(false) // waiting for its second retry
		q.report("w1", q.one("w1", "p1").Lease, failed)
		two := submit(true)
		if two.PreviousID != one.ID || must(t, first(q.Run(ctx, "acme", two.ID)), nil).PreviousID != one.ID {
			t.Fatalf("run %+v is not linked to %s", two, one.ID)
		}
		first(q.Cancel(ctx, "acme", two.Jobs[0].ID))
		three := submit(true)
		if three.PreviousID != two.ID {
			t.Fatalf("run %+v is not linked to %s", three, two.ID)
		}
		q.report("w1", q.one("w1", "p1").Lease, passed)
		if again := submit(false); again.ID != three.ID {
			t.Fatalf("a passed run was repeated: %+v", again)
		}
		other := sub
		other.BodyHash = "other"
		_, _, err := q.Submit(ctx, other)
		wantCode(t, err, qgjob.CodeConflict)
	})
}

func TestConcurrentSubmitsWithOneKeyMakeOneRun(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) {
			o := database(t, kind)
			servers := []*queue{open(t, o)}
			if kind == "postgresql" {
				servers = append(servers, open(t, o))
			}
			sub := submission("acme", "v1", "tests/a.spec.js", "tests/b.spec.js")
			sub.IdempotencyKey, sub.BodyHash = "key", "body"
			const clients = 64
			ids := make([]string, clients)
			made := make([]bool, clients)
			var wg sync.WaitGroup
			for i := range clients {
				wg.Go(func() {
					run, created, err := servers[i%len(servers)].Submit(t.Context(), sub)
					if err != nil || len(run.Jobs) != 2 {
						t.Errorf("client %d: %+v, %v", i, run, err)
					}
					ids[i], made[i] = run.ID, created
				})
			}
			wg.Wait()
			slices.Sort(ids)
			if len(slices.Compact(ids)) != 1 || len(slices.DeleteFunc(made, func(c bool) bool { return !c })) != 1 {
				t.Fatalf("runs %v, made %v: want one run, made once", ids, made)
			}
			if st := first(servers[0].Stats(t.Context())); st.Jobs[qgjob.Queued] != 2 {
				t.Fatalf("%d jobs queued, want 2", st.Jobs[qgjob.Queued])
			}
			checkCounters(t, servers[0])
		})
	}
}

func TestBuilds(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		resolve := func(org, app, build string) (string, error) {
			sub := submission(org, app, "tests/a.spec.js")
			sub.BuildSHA256 = build
			run, _, err := q.Submit(ctx, sub)
			if err != nil {
				return "", err
			}
			return q.job(run.Jobs[0].ID).Job.BuildSHA256, nil
		}
		if got, err := resolve("acme", "v1", ""); err != nil || got != "" {
			t.Fatalf("without builds: %q, %v", got, err)
		}
		for _, sha := range []string{"one", "two", "one"} {
			q.build(Build{OrgID: "acme", AppVersionID: "v1", SHA256: sha, Platform: "android", Package: "com.acme", VersionCode: 3, Size: 9})
		}
		if got, err := resolve("acme", "v1", ""); err != nil || got != "two" {
			t.Fatalf("newest build: %q, %v; want two", got, err)
		}
		if got, err := resolve("acme", "v1", "one"); err != nil || got != "one" {
			t.Fatalf("named build: %q, %v", got, err)
		}
		_, err := resolve("zeta", "v1", "one")
		wantCode(t, err, qgjob.CodeInvalid)
		_, err = resolve("acme", "v2", "one")
		wantCode(t, err, qgjob.CodeInvalid)
		builds := first(q.Builds(ctx, "acme", "v1"))
		if len(builds) != 2 || builds[0].SHA256 != "two" || builds[1].Size != 9 || builds[0].AddedAt.IsZero() {
			t.Fatalf("builds %+v", builds)
		}
		if got := first(q.Builds(ctx, "zeta", "v1")); len(got) != 0 {
			t.Fatalf("another organization sees %+v", got)
		}
	})
}

// A build says on which devices its jobs run, and a job takes the newest build for the platform that it asks for.
func TestBuildsSayWhereTheyRun(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		for _, b := range []Build{
			{SHA256: "ipa", Platform: "ios", MinOS: "17.0", Kind: qgjob.TargetDevice},
			{SHA256: "simulator", Platform: "ios", Kind: qgjob.TargetEmulator},
			{SHA256: "apk", Platform: "android"},
			{SHA256: "intel", Platform: "android", ABIs: []string{"x86", "x86_64"}},
			{SHA256: "new", Platform: "android", MinOS: "13"},
		} {
			b.OrgID, b.AppVersionID, b.Package = "acme", "v1", "com.acme"
			q.build(b)
		}
		for _, c := range []struct {
			build    string
			target   qgjob.Target
			requires string

			gotBuild, gotRequires string
			gotTarget             qgjob.Target
			refused               string
		}{
			{"", qgjob.TargetAny, "", "new", "min-os=13", qgjob.TargetAny, ""},
			{"", qgjob.TargetAny, "platform=android", "new", "platform=android, min-os=13", qgjob.TargetAny, ""},
			{"", qgjob.TargetAny, "platform=ios", "simulator", "platform=ios", qgjob.TargetEmulator, ""},
			{"ipa", qgjob.TargetAny, "tag=lab", "ipa", "platform=ios, tag=lab, min-os=17.0", qgjob.TargetDevice, ""},
			{"ipa", qgjob.TargetDevice, "", "ipa", "platform=ios, min-os=17.0", qgjob.TargetDevice, ""},
			{"apk", qgjob.TargetEmulator, "os>=12", "apk", "os>=12", qgjob.TargetEmulator, ""},
			{"intel", qgjob.TargetAny, "", "intel", "abi=x86|x86_64", qgjob.TargetAny, ""},
			{"ipa", qgjob.TargetBrowserStack, "", "ipa", "platform=ios, min-os=17.0", qgjob.TargetBrowserStack, ""},
			{"ipa", qgjob.TargetEmulator, "", "", "", "", "build ipa is for target device"},
			{"simulator", qgjob.TargetBrowserStack, "", "", "", "", "asks for BrowserStack, which has iPhones and no simulators"},
			{"ipa", qgjob.TargetAny, "platform=android", "", "", "", "asks for android, and build ipa is for ios"},
			{"apk", qgjob.TargetAny, "platform=ios", "", "", "", "asks for ios, and build apk is for android"},
		} {
			sub := submission("acme", "v1")
			sub.BuildSHA256 = c.build
			sub.Jobs = []JobSpec{{TestPath: "tests/a.spec.js", Target: c.target, Requires: c.requires}}
			run, _, err := q.Submit(ctx, sub)
			if c.refused != "" {
				if qgjob.ErrorCode(err) != qgjob.CodeInvalid || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("%+v: %v", c, err)
				}
				continue
			}
			must(t, run, err)
			if j := run.Jobs[0]; j.BuildSHA256 != c.gotBuild || j.Requires != c.gotRequires || j.Target != c.gotTarget {
				t.Errorf("%+v: build %q, requires %q, target %s", c, j.BuildSHA256, j.Requires, j.Target)
			}
		}
		late := submission("acme", "v1")
		late.BuildSHA256, late.Deadline, late.MaxCost = "simulator", time.Minute, 1
		late.Jobs = []JobSpec{{TestPath: "tests/a.spec.js"}}
		if _, _, err := q.Submit(ctx, late); qgjob.ErrorCode(err) != qgjob.CodeInvalid || !strings.Contains(err.Error(), "BrowserStack has none of") {
			t.Errorf("a simulator's build with a deadline: %v", err)
		}
	})
}

func TestPages(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		var all []qgjob.Job // newest first
		add := func(org, app string, target qgjob.Target, n int) string {
			sub := submission(org, app)
			for i := range n {
				sub.Jobs = append(sub.Jobs, JobSpec{TestPath: fmt.Sprintf("tests/%d.spec.js", i), Priority: 1, Target: target})
			}
			run, _, err := q.Submit(ctx, sub)
			must(t, run, err)
			for _, j := range run.Jobs {
				all = slices.Insert(all, 0, j)
			}
			return run.ID
		}
		add("acme", "v1", qgjob.TargetAny, 7)
		run := add("acme", "v2", qgjob.TargetEmulator, 5)
		add("zeta", "v1", qgjob.TargetAny, 6)
		add("acme", "v1", qgjob.TargetDevice, 4)
		for i := range all {
			if i%3 == 0 {
				all[i] = first(q.Cancel(ctx, "", all[i].ID))
			}
		}
		for _, f := range []JobFilter{
			{},
			{OrgID: "acme"},
			{OrgID: "zeta"},
			{OrgID: "none"},
			{State: qgjob.Canceled},
			{State: qgjob.Passed},
			{OrgID: "acme", State: qgjob.Queued},
			{AppVersionID: "v1"},
			{OrgID: "acme", AppVersionID: "v1", State: qgjob.Canceled},
			{Target: qgjob.TargetAny},
			{OrgID: "acme", AppVersionID: "v1", Target: qgjob.TargetDevice, State: qgjob.Queued},
			{RunID: run},
			{RunID: run, State: qgjob.Canceled},
			{OrgID: "acme", RunID: run},
			{OrgID: "zeta", RunID: run},
			{RunID: "none"},
		} {
			var want, got []string
			for _, j := range all {
				if (f.OrgID == "" || f.OrgID == j.OrgID) && (f.AppVersionID == "" || f.AppVersionID == j.AppVersionID) &&
					(f.State == "" || f.State == j.State) && (f.Target == "" || f.Target == j.Target) && (f.RunID == "" || f.RunID == j.RunID) {
					want = append(want, j.ID)
				}
			}
			f.Limit = 3
			for {
				jobs, next, err := q.Jobs(ctx, f)
				if err != nil || len(jobs) > 3 || (next != "" && len(jobs) < 3) {
					t.Fatalf("%+v: %d jobs, next %q, %v", f, len(jobs), next, err)
				}
				for _, j := range jobs {
					got = append(got, j.ID)
				}
				if f.Cursor = next; next == "" {
					break
				}
			}
			if !slices.Equal(got, want) {
				t.Fatalf("%+v:\n got %d %v\nwant %d %v", f, len(got), got, len(want), want)
			}
		}
		_, _, err := q.Jobs(ctx, JobFilter{Cursor: "nonsense"})
		wantCode(t, err, qgjob.CodeInvalid)
		_, _, err = q.Jobs(ctx, JobFilter{OrgID: "zeta", Cursor: all[0].ID})
		wantCode(t, err, qgjob.CodeInvalid)
	})
}

func TestPagesOfManyOrganizations(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		const orgs = 50
		for i := range orgs {
			must(t, 0, third(q.Submit(t.Context(), submission(fmt.Sprintf("org%d", i), "v1", "tests/a.spec.js"))))
		}
		for _, f := range []JobFilter{{State: qgjob.Queued, Limit: 500}, {AppVersionID: "v1", Limit: 500}} {
			jobs, next, err := q.Jobs(t.Context(), f)
			if err != nil || len(jobs) != orgs || next != "" || jobs[0].OrgID != "org49" || jobs[orgs-1].OrgID != "org0" {
				t.Fatalf("%+v: %d jobs, next %q, %v", f, len(jobs), next, err)
			}
		}
	})
}

func TestOrganizationsDoNotSeeEachOther(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		q.one("w1", "p1")
		_, err := q.Run(ctx, "zeta", j.RunID)
		wantCode(t, err, qgjob.CodeNotFound)
		_, err = q.Job(ctx, "zeta", j.ID)
		wantCode(t, err, qgjob.CodeNotFound)
		_, err = q.Events(ctx, "zeta", j.ID, 0)
		wantCode(t, err, qgjob.CodeNotFound)
		_, err = q.Cancel(ctx, "zeta", j.ID)
		wantCode(t, err, qgjob.CodeNotFound)
		_, err = q.Log(ctx, "zeta", j.ID, 0, 0, 10)
		wantCode(t, err, qgjob.CodeNotFound)
		lanes, running, err := q.Queue(ctx, "zeta")
		if err != nil || len(lanes) != 0 || running != 0 {
			t.Fatalf("lanes %+v, running %d, %v", lanes, running, err)
		}
		if _, running, _ := q.Queue(ctx, "acme"); running != 1 {
			t.Fatalf("running %d, want 1", running)
		}
		_, err = q.Job(ctx, "", "no\x00such\xffjob")
		wantCode(t, err, qgjob.CodeNotFound)
	})
}

func TestQueueAndStats(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		ctx := t.Context()
		if st := first(q.Stats(ctx)); st.WorkerSeen || st.OldestQueued != 0 || st.Jobs[qgjob.Queued] != 0 {
			t.Fatalf("stats of nothing: %+v", st)
		}
		q.submit("v1", "tests/a.spec.js", "tests/b.spec.js", "tests/c.spec.js")
		q.advance(time.Minute)
		urgent := submission("zeta", "v9", "tests/u.spec.js")
		urgent.Jobs[0].Priority, urgent.Jobs[0].Target = 0, qgjob.TargetBrowserStack
		must(t, 0, third(q.Submit(ctx, urgent)))
		q.worker("w1", "p1", "p2")
		a := q.one("w1", "p1")
		q.report("w1", a.Lease, failed)
		lanes, running, err := q.Queue(ctx, "")
		if err != nil || running != 0 || len(lanes) != 2 || lanes[0].AppVersionID != "v9" || lanes[1].Queued != 3 || lanes[1].Waited < time.Minute {
			t.Fatalf("lanes %+v, running %d, %v", lanes, running, err)
		}
		a = q.one("w1", "p2")
		st := first(q.Stats(ctx))
		if st.Jobs[qgjob.Queued] != 3 || st.Jobs[qgjob.Running] != 1 || st.OldestQueued < time.Minute || st.WorkersAlive != 1 ||
			st.Devices[qgjob.DeviceBusy] != 1 || st.Devices[qgjob.DeviceIdle] != 1 || st.InstallsSaved != 1 ||
			st.Attempts[AttemptKind{qgjob.OutcomeFailed, qgjob.CauseTestFailed}] != 1 {
			t.Fatalf("stats %+v", st)
		}
	})
}

func third[A, B any](_ A, _ B, err error) error { return err }

func TestTextThatADatabaseCannotHold(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.submit("v1", "tests/a.spec.js")
		q.worker("w1", "p1")
		a := q.one("w1", "p1")
		r := failed
		r.Message = "nul \x00 and \xff" + strings.Repeat("é", 10)
		r.Report.Tests = []qgjob.TestResult{{Title: "nul \x00", Status: qgjob.TestFailed, Error: "\xff"}}
		if answer := q.report("w1", a.Lease, r); answer.Trigger != qgjob.Retry {
			t.Fatalf("answer %+v", answer)
		}
		if got := q.job(a.Job.ID).Attempts[0]; !strings.HasPrefix(got.Message, "nul \uFFFD and \uFFFDé") || got.Report.Tests[0].Title != "nul \x00" {
			t.Fatalf("attempt %+v", got)
		}
	})
}

// A page looks at so many jobs at the most. What is rare among them is still found, by the pages that follow.
func TestPagesPassOverABoundedNumberOfJobs(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		rare := q.submit("v1", "tests/rare.spec.js")[0]
		first(q.Cancel(t.Context(), "acme", rare.ID))
		sub := submission("acme", "v1")
		for range pageWork + 10 {
			sub.Jobs = append(sub.Jobs, JobSpec{TestPath: "tests/a.spec.js", Priority: 1, Target: qgjob.TargetAny})
		}
		must(t, 0, third(q.Submit(t.Context(), sub)))
		for _, f := range []JobFilter{{}, {OrgID: "acme"}, {OrgID: "acme", AppVersionID: "v1"}} {
			f.State = qgjob.Canceled
			jobs, next, err := q.Jobs(t.Context(), f)
			if must(t, 0, err); len(jobs) != 0 || next == "" {
				t.Fatalf("%+v: a page of %d jobs, next %q", f, len(jobs), next)
			}
			f.Cursor = next
			jobs, next, err = q.Jobs(t.Context(), f)
			if must(t, 0, err); len(jobs) != 1 || jobs[0].ID != rare.ID || next != "" {
				t.Fatalf("%+v: then %d jobs, next %q", f, len(jobs), next)
			}
		}
	})
}

// A build goes to the devices that its native code is for, also after the server has started again, and is refused where there are none.
func TestBuildsGoWhereTheirCodeRuns(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		build := Build{OrgID: "acme", AppVersionID: "v1", SHA256: "intel", Platform: "android", Package: "com.acme", ABIs: []string{"x86", "x86_64"}}
		q.build(build)
		arm, intel := phone("arm"), phone("avd")
		arm.ABIs, intel.ABIs = "arm64-v8a,armeabi-v7a", "x86_64,arm64-v8a"
		must(t, 0, second(q.Register(t.Context(), "w", "host", "test", []DeviceReport{arm})))
		_, _, err := q.Submit(t.Context(), submission("acme", "v1", "a.spec.ts"))
		if qgjob.ErrorCode(err) != qgjob.CodeUnmatched || !strings.Contains(err.Error(), "arm runs arm64-v8a and armeabi-v7a, and the build is for x86 or x86_64") {
			t.Fatalf("with no device for it: %v", err)
		}
		must(t, 0, second(q.Register(t.Context(), "w", "host", "test", []DeviceReport{arm, intel})))
		q.submit("v1", "a.spec.ts")
		q.writer.board = nil // as after a start
		if got := q.wait("w", "arm", "avd"); len(got) != 1 || got[0].DeviceID != "avd" {
			t.Errorf("the job went to %+v", got)
		}
	})
}
