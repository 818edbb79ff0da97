package server

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

// runEvery is the shortest time between two changes of a run to one watcher.
const runEvery = 300 * time.Millisecond

func (s *Server) cancelRun(ctx context.Context, in *runInput) (*runOutput, error) {
	id, err := parseUUID("run", in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.store.CancelRun(ctx, principalOf(ctx).OrgID, id); err != nil {
		return nil, err
	}
	return s.run(ctx, in)
}

type retryInput struct {
	ID   string `path:"id" doc:"UUID of the run"`
	Body api.RetryRequest
}

// retryRun submits the jobs of a run again, as they were.
func (s *Server) retryRun(ctx context.Context, in *retryInput) (*runOutput, error) {
	id, err := parseUUID("run", in.ID)
	if err != nil {
		return nil, err
	}
	run, err := s.store.Run(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	if !run.State.IsVerdict() {
		return nil, qgjob.Errorf(qgjob.CodeConflict, "run %s is %s: wait for its verdict, or cancel it, before its jobs are run again", id, run.State)
	}
	first := run.Jobs[0]
	request := api.SubmitRequest{
		OrgID: run.OrgID, AppVersionID: run.AppVersionID, CI: run.CI, MaxFailures: run.MaxFailures,
		BundleSHA256: first.BundleSHA256, BuildSHA256: first.BuildSHA256, Project: first.Project, ConfigPath: first.ConfigPath,
		IdempotencyKey: in.Body.IdempotencyKey, AllowUnmatched: true, // they were allowed before
		QueueTimeoutSeconds: run.QueueTimeoutSeconds, MaxCost: run.MaxCost, Video: string(first.Video),
	}
	if run.Deadline != nil {
		request.DeadlineSeconds = int64(run.Deadline.Sub(run.SubmittedAt).Seconds())
	}
	for _, j := range run.Jobs {
		if !in.Body.Failed || j.State != qgjob.Passed {
			request.Jobs = append(request.Jobs, api.JobSpec{TestPath: j.TestPath, Shard: j.Shard, Priority: &j.Priority, Target: string(j.Target), Requires: j.Requires})
		}
	}
	if len(request.Jobs) == 0 {
		return nil, qgjob.Errorf(qgjob.CodeConflict, "every job of run %s passed: there is none to run again", id)
	}
	if !slices.ContainsFunc(request.Jobs, func(j api.JobSpec) bool { return j.Target != string(qgjob.TargetBrowserStack) }) {
		request.DeadlineSeconds, request.MaxCost = 0, 0 // none of them can overflow
	}
	environment, err := s.environmentAgain(ctx, run.OrgID, id)
	if err != nil {
		return nil, err
	}
	return s.submitAgain(ctx, request, id, environment)
}

type runReportOutput struct {
	Body api.RunReport
}

func (s *Server) runReport(ctx context.Context, in *runInput) (*runReportOutput, error) {
	id, err := parseUUID("run", in.ID)
	if err != nil {
		return nil, err
	}
	org := principalOf(ctx).OrgID
	run, err := s.store.Run(ctx, org, id)
	if err != nil {
		return nil, err
	}
	attempts, err := s.store.RunAttempts(ctx, org, id)
	if err != nil {
		return nil, err
	}
	return &runReportOutput{Body: api.RunReport{Run: run, Attempts: attempts}}, nil
}

func (s *Server) watchRun(ctx context.Context, in *runInput) (*streamOutput, error) {
	id, err := parseUUID("run", in.ID)
	if err != nil {
		return nil, err
	}
	org := principalOf(ctx).OrgID
	run, err := s.store.Run(ctx, org, id)
	if err != nil {
		return nil, err
	}
	topics := make([]string, len(run.Jobs))
	for i, j := range run.Jobs {
		topics[i] = store.TopicJob(j.ID)
	}
	news := s.store.Subscribe(topics...)
	if run, err = s.store.Run(ctx, org, id); err != nil {
		news.Close()
		return nil, err
	}
	return &streamOutput{Body: func(hc huma.Context) {
		defer news.Close()
		// An error is the client's leaving, or the store's: either way the client comes back.
		_ = s.sendRun(ctx, newSSE(hc), news, org, run)
	}}, nil
}

// sendRun sends a run's changes until the verdict was sent, the client left, or the server shuts down.
func (s *Server) sendRun(ctx context.Context, out *sse, news *store.Subscription, org string, run qgjob.Run) error {
	heartbeat := time.NewTicker(api.StreamHeartbeat)
	defer heartbeat.Stop()
	sent := map[string]qgjob.Job{}
	for {
		if change := changeOf(run, sent); len(change.Jobs) > 0 {
			data, err := json.Marshal(change)
			if err != nil {
				return err
			}
			if err := out.event(0, data); err != nil {
				return err
			}
			if run.State.IsVerdict() {
				return nil
			}
		}
		s.rest(ctx, runEvery)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.draining:
			return nil
		case <-heartbeat.C:
			if err := out.heartbeat(); err != nil {
				return err
			}
			continue
		case <-news.C:
		}
		var err error
		if run, err = s.store.Run(ctx, org, run.ID); err != nil {
			return err
		}
	}
}

// changeOf is what a watcher has not been sent, and notes that it is.
func changeOf(run qgjob.Run, sent map[string]qgjob.Job) api.RunChange {
	change := api.RunChange{State: run.State, Jobs: []qgjob.Job{}}
	for _, j := range run.Jobs {
		old, known := sent[j.ID]
		if !known || old.State != j.State || old.Attempts != j.Attempts || old.TestFailures != j.TestFailures || old.InfraErrors != j.InfraErrors {
			change.Jobs = append(change.Jobs, j)
			sent[j.ID] = j
		}
	}
	return change
}

// submitAgain makes a run that repeats another one.
func (s *Server) submitAgain(ctx context.Context, request api.SubmitRequest, previous string, environment store.Environment) (*runOutput, error) {
	sub, err := submission(request)
	if err != nil {
		return nil, err
	}
	sub.PreviousID, sub.Environment = previous, environment
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
