package server

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/flaky"
)

// reviewEvery is how often quarantined tests are looked at.
const reviewEvery = 2 * time.Minute

type flakyInput struct {
	OrgID string `query:"org_id" required:"true" maxLength:"200"`
}

type flakyOutput struct {
	Body api.TestHistories
}

func (s *Server) flaky(ctx context.Context, in *flakyInput) (*flakyOutput, error) {
	if err := principalOf(ctx).mayUse(in.OrgID); err != nil {
		return nil, err
	}
	executions, err := s.store.Executions(ctx, in.OrgID)
	if err != nil {
		return nil, err
	}
	quarantine, err := s.store.Quarantined(ctx, in.OrgID)
	if err != nil {
		return nil, err
	}
	return &flakyOutput{Body: api.TestHistories{Tests: list(flaky.Judge(executions)), Quarantine: list(quarantine)}}, nil
}

type quarantineInput struct {
	Body api.QuarantineRequest
}

func (s *Server) quarantine(ctx context.Context, in *quarantineInput) (*struct{}, error) {
	testPath, err := checkTest(ctx, in.Body.OrgID, in.Body.TestPath, in.Body.Title)
	if err != nil {
		return nil, err
	}
	return nil, s.store.Quarantine(ctx, qgjob.Quarantine{OrgID: in.Body.OrgID, TestPath: testPath, Title: in.Body.Title, Reason: in.Body.Reason})
}

type releaseInput struct {
	Body api.ReleaseRequest
}

func (s *Server) release(ctx context.Context, in *releaseInput) (*struct{}, error) {
	testPath, err := checkTest(ctx, in.Body.OrgID, in.Body.TestPath, in.Body.Title)
	if err != nil {
		return nil, err
	}
	return nil, s.store.Release(ctx, in.Body.OrgID, testPath, in.Body.Title)
}

// checkTest says whether the principal may name a test, and gives its spec's path its one form.
func checkTest(ctx context.Context, org, testPath, title string) (string, error) {
	if err := principalOf(ctx).mayUse(org); err != nil {
		return "", err
	}
	if strings.ContainsFunc(title, unicode.IsControl) {
		return "", qgjob.Errorf(qgjob.CodeInvalid, "title %q holds control characters", title)
	}
	return qgjob.CleanTestPath(testPath)
}

// review lets tests that are stable again return, and quarantines flaky ones where the rule is on. Servers
// that do it at the same time do the same.
func (s *Server) review(ctx context.Context) error {
	orgs, err := s.store.Organizations(ctx)
	if err != nil {
		return err
	}
	for _, org := range orgs {
		if err := s.reviewOrganization(ctx, org); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) reviewOrganization(ctx context.Context, org string) error {
	quarantined, err := s.store.Quarantined(ctx, org)
	if err != nil || len(quarantined) == 0 && !s.byRule {
		return err
	}
	executions, err := s.store.Executions(ctx, org)
	if err != nil {
		return err
	}
	kept := map[[2]string]bool{}
	for _, q := range quarantined {
		kept[[2]string{q.TestPath, q.Title}] = true
		if !flaky.StableAgain(executions, q) {
			continue
		}
		if err := s.store.Release(ctx, org, q.TestPath, q.Title); err != nil && qgjob.ErrorCode(err) != qgjob.CodeNotFound {
			return err
		}
		s.log.Info("a quarantined test is stable again and counts", "organization", org, "test", q.TestPath, "title", q.Title)
	}
	if !s.byRule {
		return nil
	}
	for _, t := range flaky.Judge(executions) {
		if kept[[2]string{t.TestPath, t.Title}] || !flaky.ShouldQuarantine(t) || t.Streak >= flaky.StableStreak {
			continue
		}
		reason := fmt.Sprintf("flaky on %d code states: %d of %d executions failed", t.Mixed, t.Failures, t.Executions)
		err := s.store.Quarantine(ctx, qgjob.Quarantine{OrgID: org, TestPath: t.TestPath, Title: t.Title, ByRule: true, Reason: reason})
		if err != nil {
			return err
		}
		s.log.Info("a flaky test is quarantined", "organization", org, "test", t.TestPath, "title", t.Title, "reason", reason)
	}
	return nil
}
