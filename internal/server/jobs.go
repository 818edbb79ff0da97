package server

import (
	"context"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

type jobsInput struct {
	OrgID        string `query:"org_id" maxLength:"200"`
	AppVersionID string `query:"app_version_id" maxLength:"200"`
	RunID        string `query:"run_id" doc:"UUID of a run"`
	State        string `query:"state" enum:"queued,running,canceling,passed,failed,errored,canceled"`
	Target       string `query:"target" enum:"any,device,emulator,browserstack"`
	Cursor       string `query:"cursor" maxLength:"1000" doc:"next of the page before"`
	Limit        int    `query:"limit" minimum:"1" maximum:"500" default:"50"`
}

type jobsOutput struct {
	Body api.JobList
}

func (s *Server) jobs(ctx context.Context, in *jobsInput) (*jobsOutput, error) {
	org, err := principalOf(ctx).narrow(in.OrgID)
	if err != nil {
		return nil, err
	}
	if in.RunID != "" {
		if _, err := parseUUID("run", in.RunID); err != nil {
			return nil, err
		}
	}
	jobs, next, err := s.store.Jobs(ctx, store.JobFilter{
		OrgID: org, AppVersionID: in.AppVersionID, RunID: in.RunID,
		State: qgjob.JobState(in.State), Target: qgjob.Target(in.Target),
		Cursor: in.Cursor, Limit: in.Limit,
	})
	if err != nil {
		return nil, err
	}
	return &jobsOutput{Body: api.JobList{Jobs: list(jobs), Next: next}}, nil
}

type jobInput struct {
	ID string `path:"id" doc:"UUID of the job"`
}

type jobOutput struct {
	Body api.JobDetail
}

func (s *Server) job(ctx context.Context, in *jobInput) (*jobOutput, error) {
	id, err := parseUUID("job", in.ID)
	if err != nil {
		return nil, err
	}
	d, err := s.store.Job(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	return &jobOutput{Body: api.JobDetail{Job: d.Job, AttemptList: list(d.Attempts), Events: list(d.Events)}}, nil
}

type cancelOutput struct {
	Body qgjob.Job
}

func (s *Server) cancel(ctx context.Context, in *jobInput) (*cancelOutput, error) {
	id, err := parseUUID("job", in.ID)
	if err != nil {
		return nil, err
	}
	job, err := s.store.Cancel(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	return &cancelOutput{Body: job}, nil
}

type logInput struct {
	ID      string `path:"id" doc:"UUID of the job"`
	Attempt int    `query:"attempt" minimum:"0" doc:"number of the attempt; 0 is the newest one"`
	Offset  int64  `query:"offset" minimum:"0" doc:"of the first byte wanted"`
	WaitMS  int64  `query:"wait_ms" minimum:"0" maximum:"60000" doc:"how long to wait when there is nothing from the offset on"`
}

type logOutput struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Attempt     int    `header:"Qgjob-Attempt" doc:"number of the attempt; 0 while the job had none"`
	Next        int64  `header:"Qgjob-Log-Next" doc:"offset of the first byte after the ones sent"`
	Ended       bool   `header:"Qgjob-Log-Ended" doc:"the attempt has ended and nothing follows"`
	Body        []byte
}

func (s *Server) readLog(ctx context.Context, in *logInput) (*logOutput, error) {
	id, err := parseUUID("job", in.ID)
	if err != nil {
		return nil, err
	}
	read := func() (store.LogPage, error) {
		return s.store.Log(ctx, principalOf(ctx).OrgID, id, in.Attempt, in.Offset, api.MaxLogChunk)
	}
	page, err := read()
	if err == nil && len(page.Data) == 0 && !page.End && in.WaitMS > 0 {
		page, err = s.waitForLog(ctx, id, time.Duration(in.WaitMS)*time.Millisecond, read)
	}
	if err != nil {
		return nil, err
	}
	return &logOutput{
		ContentType: "text/plain; charset=utf-8",
		Attempt:     page.Attempt,
		Next:        in.Offset + int64(len(page.Data)),
		Ended:       page.End,
		Body:        page.Data,
	}, nil
}

// waitForLog reads a log until there is something new, or the wait ends.
func (s *Server) waitForLog(ctx context.Context, jobID string, wait time.Duration, read func() (store.LogPage, error)) (store.LogPage, error) {
	news := s.store.Subscribe(store.TopicJob(jobID), store.TopicLog(jobID))
	defer news.Close()
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		page, err := read()
		if err != nil || len(page.Data) > 0 || page.End {
			return page, err
		}
		select {
		case <-ctx.Done():
			return page, ctx.Err()
		case <-s.draining:
			return page, nil
		case <-end.C:
			return page, nil
		case <-news.C:
		}
	}
}

// list is s as JSON wants it: a list without entries is [], never null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
