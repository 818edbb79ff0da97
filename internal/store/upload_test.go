package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"qgjob"
)

const unusedFor = 30 * 24 * time.Hour

// forget forgets what nobody used for a unusedFor, and says what that was.
func (q *queue) forget() string {
	q.t.Helper()
	var shas []string
	for more := true; more; {
		var forgotten []Upload
		var err error
		forgotten, more, err = q.ForgetUploads(q.t.Context(), unusedFor)
		must(q.t, 0, err)
		for _, u := range forgotten {
			shas = append(shas, u.SHA256)
		}
	}
	slices.Sort(shas)
	return strings.Join(shas, " ")
}

func wantForgotten(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("forgotten are %q, want %q", got, want)
	}
}

func (q *queue) submitBundle(sha string) qgjob.Job {
	q.t.Helper()
	sub := submission("acme", "v1", "a.spec.js")
	sub.BundleSHA256 = sha
	run, _, err := q.Submit(q.t.Context(), sub)
	must(q.t, run, err)
	return run.Jobs[0]
}

// What somebody needed within a unusedFor stays: named by a submit, by a job that waits or runs however long, asked for by a client that is about to name it, uploaded.
func TestUploadsThatNobodyUsesAreForgotten(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		for _, sha := range []string{"waits", "runs", "over", "asked", "named", "nobody"} {
			q.bundle("acme", sha)
		}
		must(t, Upload{}, second(q.BeginUpload(t.Context(), "acme", BundleUpload, "broken off")))
		must(t, Upload{}, second(q.BeginUpload(t.Context(), "acme", BundleUpload, "comes")))
		q.worker("w", "p")
		q.submitBundle("over")
		q.report("w", q.one("w", "p").Lease, passed)
		q.submitBundle("runs")
		running := q.one("w", "p")
		q.submitBundle("waits")
		wantForgotten(t, q.forget(), "")

		q.advance(unusedFor - time.Hour)
		must(t, 0, second(q.Heartbeat(t.Context(), "w", phones([]string{"p"}), []Lease{running.Lease})))
		must(t, Upload{}, second(q.UseUpload(t.Context(), "acme", BundleUpload, "asked")))
		named := q.submitBundle("named")
		must(t, 0, q.CancelRun(t.Context(), "acme", named.RunID))
		must(t, Upload{}, second(q.BeginUpload(t.Context(), "acme", BundleUpload, "comes")))
		q.bundle("acme", "fresh")
		q.advance(3 * time.Hour)
		wantForgotten(t, q.forget(), "broken off nobody over")

		for _, sha := range []string{"over", "broken off"} {
			_, err := q.Upload(t.Context(), "acme", BundleUpload, sha)
			wantCode(t, err, qgjob.CodeNotFound)
			_, err = q.UseUpload(t.Context(), "acme", BundleUpload, sha)
			wantCode(t, err, qgjob.CodeNotFound)
			sub := submission("acme", "v1", "a.spec.js")
			sub.BundleSHA256 = sha
			_, _, err = q.Submit(t.Context(), sub)
			if wantCode(t, err, qgjob.CodeInvalid); !strings.Contains(err.Error(), "upload it first") {
				t.Errorf("a submit of what is gone: %v", err)
			}
			sub.PreviousID = "that-run"
			_, _, err = q.Submit(t.Context(), sub)
			if wantCode(t, err, qgjob.CodeConflict); !strings.Contains(err.Error(), "run that-run") || !strings.Contains(err.Error(), "qgjob submit") {
				t.Errorf("a retry of what is gone: %v", err)
			}
		}
		if job := q.job(running.Job.ID); job.Job.State != qgjob.Running {
			t.Fatalf("the job that was to run is %s", job.Job.State)
		}
	})
}

// The newest builds of an app version that is in use stay, so that no submit takes an older one in their stead; a file is known once, whatever versions it is one of.
func TestTheNewestBuildOfAVersionInUseStays(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		build := func(version, sha, platform string) {
			q.build(Build{OrgID: "acme", AppVersionID: version, SHA256: sha, Platform: platform, Package: "com.acme"})
		}
		build("v1", "old", "android")
		build("v1", "used", "android")
		build("v1", "ipa", "ios")
		build("v1", "new", "android")
		build("v2", "unused", "android")
		build("v3", "used", "android")
		q.advance(unusedFor - time.Hour)
		sub := submission("acme", "v1", "a.spec.js")
		sub.BuildSHA256 = "used"
		run, _, err := q.Submit(t.Context(), sub)
		must(t, run, err)
		must(t, 0, q.CancelRun(t.Context(), "acme", run.ID))
		q.advance(3 * time.Hour)
		wantForgotten(t, q.forget(), "old unused")
		var left []string
		for _, b := range first(q.Builds(t.Context(), "acme", "v1")) {
			left = append(left, b.SHA256)
		}
		if got := strings.Join(left, " "); got != "new ipa used" {
			t.Errorf("builds %s", got)
		}

		q.advance(2 * unusedFor)
		wantForgotten(t, q.forget(), "ipa new used")
		for name, want := range map[string]string{newestBuild: "submit with --app", "used": "upload it again"} {
			sub.BuildSHA256 = name
			_, _, err = q.Submit(t.Context(), sub)
			if wantCode(t, err, qgjob.CodeInvalid); !strings.Contains(err.Error(), want) {
				t.Errorf("a submit of build %q that is gone: %v", name, err)
			}
		}
		build("v1", "new", "android")
		sub.BuildSHA256 = newestBuild
		run, _, err = q.Submit(t.Context(), sub)
		if must(t, run, err); run.Jobs[0].BuildSHA256 != "new" {
			t.Errorf("the build that came again is not the newest: %+v", run.Jobs[0])
		}
	})
}

// An upload that lasted longer than unused ones are kept is given up, and its file is removed again.
func TestAnUploadThatIsForgottenMeanwhileIsGivenUp(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		slow, err := q.BeginUpload(t.Context(), "acme", BundleUpload, "slow")
		must(t, slow, err)
		q.advance(unusedFor + 2*time.Hour)
		wantForgotten(t, q.forget(), "slow")
		must(t, 0, q.UploadRemoved(t.Context(), slow))
		again := q.bundle("acme", "slow")
		if again.Copy == slow.Copy {
			t.Error("what comes after a removal has the name of what is removed")
		}
		wantCode(t, q.AddBundle(t.Context(), slow), qgjob.CodeUnavailable)
		list, err := q.RemovedUploads(t.Context(), Upload{})
		if must(t, list, err); len(list) != 1 || list[0] != slow {
			t.Errorf("to be removed are %+v", list)
		}
	})
}

// What was uploaded before anybody kept account of it is known, and was used when the last run that names it was submitted.
func TestEarlierUploadsAreKnown(t *testing.T) {
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) {
			o := database(t, kind)
			old, err := Open(t.Context(), o)
			must(t, old, err)
			must(t, 0, old.write(t.Context(), func(ctx context.Context, t *tx) error {
				for _, text := range append(slices.Clone(undoEvents),
					"drop table uploads", "drop table removed_uploads", "drop index builds_by_file", "delete from goose_db_version where version_id = 69",
					`insert into builds (org_id, app_version_id, sha256, number, platform, package, version_name, version_code, size_bytes, added_at_ms)
						values ('acme', 'v1', 'build', 1, 'android', 'com.acme', '', 1, 1, 5), ('acme', 'v2', 'build', 1, 'android', 'com.acme', '', 1, 1, 7), ('acme', 'v1', 'unused', 2, 'android', 'com.acme', '', 1, 1, 9)`,
					`insert into runs (seq, id, org_id, app_version_id, previous_id, idempotency_key, body_hash, bundle_sha256, build_sha256, project, config_path, jobs, submitted_at_ms)
						values (1, 'r1', 'acme', 'v1', '', '', '', 'bundle', 'build', '', '', 1, 20), (2, 'r2', 'acme', 'v1', '', '', '', 'bundle', 'build', '', '', 1, 30), (3, 'r3', 'acme', 'v1', '', '', '', '', '', '', '', 1, 40)`,
				) {
					if err := t.exec(ctx, text); err != nil {
						return err
					}
				}
				return nil
			}))
			must(t, 0, old.Close())
			q := open(t, o)
			for sha, want := range map[string]int64{"bundle": 30, "build": 30, "unused": 9} {
				kind := BuildUpload
				if sha == "bundle" {
					kind = BundleUpload
				}
				u, used, err := q.upload(t.Context(), "acme", kind, sha)
				if must(t, u, err); used != want || u.Copy != "" {
					t.Errorf("%s was used at %d, want %d, and is copy %q", sha, used, want, u.Copy)
				}
			}
		})
	}
}

// Clients of two servers upload what is not there and submit it, while both servers remove what is not used: a submit that was taken has its file as long
// as its job is not over.
func TestNoSubmitLosesItsUpload(t *testing.T) {
	usualGrain, usualSlack := usedGrain, dateSlack
	usedGrain, dateSlack = 5*time.Millisecond, 5*time.Millisecond
	t.Cleanup(func() { usedGrain, dateSlack = usualGrain, usualSlack })
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) {
			o := database(t, kind)
			r := &removals{t: t, servers: []*queue{open(t, o), open(t, o)}}
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var sweeps, clients sync.WaitGroup
			for _, q := range r.servers {
				sweeps.Go(func() {
					for ctx.Err() == nil && r.sweep(q) {
					}
				})
				for range 2 {
					clients.Go(func() {
						for taken := 0; taken < 25; {
							time.Sleep(rand.N(16 * usedGrain)) // nobody uses it meanwhile, perhaps
							ok, err := r.submit(q)
							if err != nil {
								t.Error(err)
								return
							}
							if ok {
								taken++
							}
						}
					})
				}
			}
			clients.Wait()
			stop()
			sweeps.Wait()
			if r.removed.Load() == 0 {
				t.Error("nothing was removed meanwhile")
			}
			t.Logf("%d files were removed, %d submits were refused", r.removed.Load(), r.refused.Load())
		})
	}
}

// removals is two servers and the names of their files.
type removals struct {
	t                *testing.T
	servers          []*queue
	files            sync.Map // by Upload
	removed, refused atomic.Int64
}

// sweep removes what is not used.
func (r *removals) sweep(q *queue) bool {
	_, _, err := q.ForgetUploads(r.t.Context(), 0)
	list, listErr := q.RemovedUploads(r.t.Context(), Upload{})
	err = errors.Join(err, listErr)
	for _, u := range list {
		r.files.Delete(u)
		r.removed.Add(1)
		err = errors.Join(err, q.UploadRemoved(r.t.Context(), u))
	}
	if err != nil {
		r.t.Error(err)
	}
	return err == nil
}

// submit does what a client does, and ends the job after a look at its file. It says whether the submit was taken.
func (r *removals) submit(q *queue) (taken bool, err error) {
	ctx := r.t.Context()
	switch _, err := q.UseUpload(ctx, "acme", BundleUpload, "b"); {
	case qgjob.ErrorCode(err) == qgjob.CodeNotFound:
		u, err := q.BeginUpload(ctx, "acme", BundleUpload, "b")
		if err != nil {
			return false, err
		}
		r.files.Store(u, true)
		if err := q.AddBundle(ctx, u); qgjob.ErrorCode(err) == qgjob.CodeUnavailable {
			r.refused.Add(1)
			return false, nil // to be uploaded again
		} else if err != nil {
			return false, err
		}
	case err != nil:
		return false, err
	}
	sub := submission("acme", "v1", "a.spec.js")
	sub.BundleSHA256 = "b"
	run, _, err := q.Submit(ctx, sub)
	if qgjob.ErrorCode(err) == qgjob.CodeInvalid {
		r.refused.Add(1)
		return false, nil // likewise
	}
	if err != nil {
		return false, err
	}
	for end := time.Now().Add(usedGrain); time.Now().Before(end); {
		u, err := q.Upload(ctx, "acme", BundleUpload, "b")
		if err != nil {
			return false, fmt.Errorf("run %s was taken, and its bundle is gone: %w", run.ID, err)
		}
		if _, there := r.files.Load(u); !there {
			return false, fmt.Errorf("run %s was taken, and its bundle's file is gone", run.ID)
		}
	}
	return true, q.CancelRun(ctx, "acme", run.ID)
}
