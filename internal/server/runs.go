package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/store"
)

type submitInput struct {
	Body body[api.SubmitRequest]
}

type runOutput struct {
	Status int
	Body   qgjob.Run
}

func (s *Server) submit(ctx context.Context, in *submitInput) (*runOutput, error) {
	if err := principalOf(ctx).mayUse(in.Body.Value.OrgID); err != nil {
		return nil, err
	}
	sub, err := submission(in.Body.Value)
	if err != nil {
		return nil, err
	}
	if sub.BundleSHA256 != "" {
		key, err := s.uploaded(ctx, blob.Key{OrgID: sub.OrgID, Kind: blob.Bundle, SHA256: sub.BundleSHA256})
		if err == nil {
			_, err = s.blobs.Stat(ctx, key)
		}
		if err != nil {
			if qgjob.ErrorCode(err) == qgjob.CodeNotFound {
				err = qgjob.Errorf(qgjob.CodeInvalid, "bundle_sha256: %w", err)
			}
			return nil, err
		}
	}
	if sub.Environment, err = s.environment(ctx, in.Body.Value); err != nil {
		return nil, err
	}
	run, created, err := s.store.Submit(ctx, sub)
	if err != nil {
		return nil, err
	}
	out := &runOutput{Status: http.StatusOK, Body: run}
	if created {
		out.Status = http.StatusCreated
	}
	return out, nil
}

// submission checks a submit request and gives it its one form.
func submission(r api.SubmitRequest) (store.Submission, error) {
	if err := qgjob.CheckID("app_version_id", r.AppVersionID); err != nil {
		return store.Submission{}, err
	}
	for field, sum := range map[string]string{"bundle_sha256": r.BundleSHA256, "build_sha256": r.BuildSHA256} {
		if sum != "" {
			if err := qgjob.CheckSHA256(field, sum); err != nil {
				return store.Submission{}, err
			}
		}
	}
	for field, text := range map[string]string{"project": r.Project, "idempotency_key": r.IdempotencyKey} {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return store.Submission{}, qgjob.Errorf(qgjob.CodeInvalid, "%s %q holds control characters", field, text)
		}
	}
	config, err := cleanConfigPath(r.ConfigPath)
	if err != nil {
		return store.Submission{}, err
	}
	if err := checkFacts(r); err != nil {
		return store.Submission{}, err
	}
	jobs := make([]store.JobSpec, len(r.Jobs))
	for i, j := range r.Jobs {
		if jobs[i], err = jobSpec(j); err != nil {
			if len(r.Jobs) > 1 {
				err = qgjob.Errorf(qgjob.CodeInvalid, "jobs[%d]: %w", i, err)
			}
			return store.Submission{}, err
		}
	}
	video, err := qgjob.ParseVideo(r.Video)
	if err != nil {
		return store.Submission{}, err
	}
	if err := checkDeadline(r, jobs); err != nil {
		return store.Submission{}, err
	}
	sub := store.Submission{
		OrgID: r.OrgID, AppVersionID: r.AppVersionID, Jobs: jobs,
		BundleSHA256: r.BundleSHA256, BuildSHA256: r.BuildSHA256, Project: r.Project, ConfigPath: config,
		CI: r.CI, MaxFailures: r.MaxFailures, CancelPrevious: r.CancelPrevious,
		Video:        video,
		QueueTimeout: time.Duration(r.QueueTimeoutSeconds) * time.Second,
		Deadline:     time.Duration(r.DeadlineSeconds) * time.Second, MaxCost: r.MaxCost,
		RepeatFailed: r.RepeatFailed, AllowUnmatched: r.AllowUnmatched,
	}
	if r.IdempotencyKey != "" {
		hash, err := bodyHash(r, sub)
		if err != nil {
			return store.Submission{}, err
		}
		sub.IdempotencyKey, sub.BodyHash = r.IdempotencyKey, hash
	}
	return sub, nil
}

// checkDeadline refuses deadlines and budgets that say nothing.
func checkDeadline(r api.SubmitRequest, jobs []store.JobSpec) error {
	switch {
	case r.MaxCost > 0 && r.DeadlineSeconds == 0:
		return qgjob.Errorf(qgjob.CodeInvalid, "max_cost needs a deadline: jobs run on BrowserStack when their own devices would miss it")
	case r.DeadlineSeconds > 0 && !slices.ContainsFunc(jobs, func(j store.JobSpec) bool { return j.Target != qgjob.TargetBrowserStack }):
		return qgjob.Errorf(qgjob.CodeInvalid, "a deadline lets jobs run on BrowserStack that ask for own devices, and all of these ask for BrowserStack: leave it out")
	}
	return nil
}

// checkFacts refuses facts of the CI that cannot be stored or compared.
func checkFacts(r api.SubmitRequest) error {
	if r.CI != nil {
		for field, text := range map[string]string{
			"system": r.CI.System, "repository": r.CI.Repository, "commit": r.CI.Commit, "branch": r.CI.Branch,
			"pull_request": r.CI.PullRequest, "actor": r.CI.Actor, "workflow": r.CI.Workflow, "url": r.CI.URL,
		} {
			if strings.ContainsFunc(text, unicode.IsControl) {
				return qgjob.Errorf(qgjob.CodeInvalid, "ci.%s %q holds control characters", field, text)
			}
		}
	}
	if r.CancelPrevious && (r.CI == nil || r.CI.Branch == "") {
		return qgjob.Errorf(qgjob.CodeInvalid, "cancel_previous needs ci.branch: older runs are those of the same branch")
	}
	return nil
}

// bodyHash tells submits under one key apart: by what is asked for, however it is spelled, defaults filled
// in. Keys outlive an upgrade of the server, so that a field that is left out must not count.
func bodyHash(r api.SubmitRequest, sub store.Submission) (string, error) {
	r.IdempotencyKey, r.ConfigPath, r.CI, r.Video = "", sub.ConfigPath, nil, string(sub.Video)
	r.Jobs = make([]api.JobSpec, len(sub.Jobs))
	for i, j := range sub.Jobs {
		r.Jobs[i] = api.JobSpec{TestPath: j.TestPath, Shard: j.Shard, Priority: &j.Priority, Target: string(j.Target), Requires: j.Requires}
	}
	r.AllowUnmatched = false
	body, err := json.Marshal(r.Unsecret()) // of a short secret a hash gives away too much
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:]), nil
}

func jobSpec(j api.JobSpec) (store.JobSpec, error) {
	testPath, err := qgjob.CleanTestPath(j.TestPath)
	if err != nil {
		return store.JobSpec{}, err
	}
	if err := qgjob.CheckShard(j.Shard); err != nil {
		return store.JobSpec{}, err
	}
	target, err := qgjob.ParseTarget(j.Target)
	if err != nil {
		return store.JobSpec{}, err
	}
	priority := qgjob.DefaultPriority
	if j.Priority != nil {
		priority = *j.Priority
	}
	if err := qgjob.CheckPriority(priority); err != nil {
		return store.JobSpec{}, err
	}
	requires, err := qgjob.ParseRequirement(j.Requires)
	if err != nil {
		return store.JobSpec{}, err
	}
	return store.JobSpec{TestPath: testPath, Shard: j.Shard, Priority: priority, Target: target, Requires: requires.String()}, nil
}

// cleanConfigPath returns the path of an AppWright config in its one form, or refuses one outside the project.
func cleanConfigPath(p string) (string, error) {
	if p == "" {
		return "", nil
	}
	clean := path.Clean(p)
	if strings.ContainsFunc(p, unicode.IsControl) || strings.Contains(p, `\`) || path.IsAbs(p) ||
		clean == "." || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", qgjob.Errorf(qgjob.CodeInvalid, "config_path %q names no file inside the test project: give it relative to the project, with forward slashes", p)
	}
	return clean, nil
}

type runInput struct {
	ID string `path:"id" doc:"UUID of the run"`
}

func (s *Server) run(ctx context.Context, in *runInput) (*runOutput, error) {
	id, err := parseUUID("run", in.ID)
	if err != nil {
		return nil, err
	}
	run, err := s.store.Run(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	return &runOutput{Status: http.StatusOK, Body: run}, nil
}
