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
			Serving: c.Why.Serving, Waiting: c.Why.Waiting, Over: list(c.Why.Over), Cost: c.Why.Cost,
		}
	}
	return out, nil
}

func waiting(w *store.Waiting) *api.Waiting {
	out := &api.Waiting{
		Level: w.Level, Position: w.Position, ExpectedP50MS: w.P50.Milliseconds(), ExpectedP90MS: w.P90.Milliseconds(), Unserved: w.Unserved,
		Constraints: make([]api.Constraint, len(w.Constraints)),
	}
	for i, c := range w.Constraints {
		out.Constraints[i] = api.Constraint{Kind: string(c.Kind), Holds: c.Holds, Text: c.Text}
	}
	return out
}

type organizationInput struct {
	ID string `path:"id" doc:"the organization"`
}

type setOrganizationInput struct {
	ID   string `path:"id" doc:"the organization"`
	Body api.Organization
}

type organizationOutput struct {
	Body api.Organization
}

func (s *Server) organization(ctx context.Context, in *organizationInput) (*organizationOutput, error) {
	if err := principalOf(ctx).mayUse(in.ID); err != nil {
		return nil, err
	}
	o, err := s.store.Organization(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	return &organizationOutput{Body: api.Organization{
		Weight: float64(o.WeightPermille) / 1000, MaxDevices: o.MaxDevices, MaxCost: o.MaxCost, Cost: o.Cost,
	}}, nil
}

// setOrganization sets an organization's share, quota and budget.
func (s *Server) setOrganization(ctx context.Context, in *setOrganizationInput) (*struct{}, error) {
	if err := principalOf(ctx).mayUse(in.ID); err != nil {
		return nil, err
	}
	return nil, s.store.SetOrganization(ctx, store.Organization{
		ID: in.ID, WeightPermille: int64(in.Body.Weight * 1000), MaxDevices: in.Body.MaxDevices, MaxCost: in.Body.MaxCost,
	})
}
