package server

import (
	"context"

	"qgjob/internal/api"
	"qgjob/internal/store"
)

type explainOutput struct {
	Body api.Explanation
}

// explain says why a job waits, or why it ran where it did.
func (s *Server) explain(ctx context.Context, in *jobInput) (*explainOutput, error) {
	id, err := parseUUID("job", in.ID)
	if err != nil {
		return nil, err
	}
	e, err := s.store.Explain(ctx, principalOf(ctx).OrgID, id)
	if err != nil {
		return nil, err
	}
	out := &explainOutput{Body: api.Explanation{Job: e.Job, Choices: make([]api.Choice, len(e.Attempts))}}
	if e.Waiting != nil {
		out.Body.Waiting = waiting(e.Waiting)
	}
	for i, c := range e.Attempts {
		out.Body.Choices[i] = api.Choice{
			Attempt: c.Number, DeviceID: c.DeviceID, Reason: c.Reason, Rule: string(c.Why.Rule), Level: c.Why.Level,
			InstallMS: c.Why.Install.Milliseconds(), SavedMS: c.Why.Saved.Milliseconds(),
			Serving: c.Why.Serving, Waiting: c.Why.Waiting, Over: list(c.Why.Over),
		}
	}
	return out, nil
}

func waiting(w *store.Waiting) *api.Waiting {
	out := &api.Waiting{
		Level: w.Level, Position: w.Position, ExpectedP50MS: w.P50.Milliseconds(), ExpectedP90MS: w.P90.Milliseconds(),
		Constraints: make([]api.Constraint, len(w.Constraints)),
	}
	for i, c := range w.Constraints {
		out.Constraints[i] = api.Constraint{Kind: string(c.Kind), Holds: c.Holds, Text: c.Text}
	}
	return out
}

type organizationInput struct {
	ID   string `path:"id" doc:"the organization"`
	Body api.Organization
}

// setOrganization sets an organization's share and quota.
func (s *Server) setOrganization(ctx context.Context, in *organizationInput) (*struct{}, error) {
	if err := principalOf(ctx).mayUse(in.ID); err != nil {
		return nil, err
	}
	return nil, s.store.SetOrganization(ctx, in.ID, int64(in.Body.Weight*1000), in.Body.MaxDevices)
}
