package server

import (
	"context"
	"time"

	"qgjob/internal/api"
	"qgjob/internal/store"
)

type exportWorkloadInput struct {
	OrgID  string    `query:"org_id" maxLength:"200" doc:"only this organization's"`
	Since  time.Time `query:"since" required:"true" doc:"only jobs that were submitted since then"`
	Cursor string    `query:"cursor" maxLength:"1000" doc:"next of the page before"`
	Limit  int       `query:"limit" minimum:"1" maximum:"500" default:"500" doc:"jobs that the page passes over"`
}

type exportWorkloadOutput struct {
	Body api.Workload
}

// exportWorkload is a page of what ran, as a workload.
func (s *Server) exportWorkload(ctx context.Context, in *exportWorkloadInput) (*exportWorkloadOutput, error) {
	org, err := principalOf(ctx).narrow(in.OrgID)
	if err != nil {
		return nil, err
	}
	h, err := s.store.History(ctx, store.HistoryFilter{OrgID: org, Since: in.Since, Cursor: in.Cursor, Limit: in.Limit})
	if err != nil {
		return nil, err
	}
	out := &exportWorkloadOutput{Body: api.Workload{Jobs: make([]api.WorkloadJob, len(h.Jobs)), LeftOut: h.LeftOut, Next: h.Next}}
	for i, j := range h.Jobs {
		out.Body.Jobs[i] = api.WorkloadJob{
			ID: j.ID, AtMS: j.SubmittedAt.UnixMilli(), Org: j.OrgID, AppVersion: j.AppVersionID, Test: j.TestPath,
			Priority: j.Priority, Target: j.Target, Run: j.RunID, DurationMS: j.Ran.Milliseconds(),
			DeadlineMS: j.Deadline.Milliseconds(), MaxCost: j.MaxCost,
		}
	}
	return out, nil
}

type exportFleetInput struct {
	OrgID string `query:"org_id" maxLength:"200" doc:"only this organization's share; the devices are everybody's"`
}

type exportFleetOutput struct {
	Body api.Fleet
}

// exportFleet is the devices and organizations, as a fleet.
func (s *Server) exportFleet(ctx context.Context, in *exportFleetInput) (*exportFleetOutput, error) {
	org, err := principalOf(ctx).narrow(in.OrgID)
	if err != nil {
		return nil, err
	}
	devices, shares, err := s.store.Fleet(ctx, org)
	if err != nil {
		return nil, err
	}
	out := &exportFleetOutput{Body: api.Fleet{Devices: make([]api.FleetDevice, len(devices)), Orgs: make([]api.FleetOrg, len(shares))}}
	for i, d := range devices {
		out.Body.Devices[i] = api.FleetDevice{ID: d.DeviceID, Target: d.Kind, InstallMS: d.Install.Milliseconds(), ResetMS: d.Reset.Milliseconds(), MinutePrice: d.MinutePrice}
	}
	for i, o := range shares {
		out.Body.Orgs[i] = api.FleetOrg{ID: o.OrgID, Weight: o.Weight, MaxDevices: o.MaxDevices, MaxCost: o.MaxCost}
	}
	return out, nil
}
