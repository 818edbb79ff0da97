package api

import "qgjob"

// Workload is a page of the past: GET /v1/export/workload. Its jobs are lines of the workload that qgjob simulate reads.
type Workload struct {
	Jobs    []WorkloadJob `json:"jobs" nullable:"false"`
	LeftOut int           `json:"left_out" doc:"jobs of this page that no attempt has brought to a verdict"`
	Next    string        `json:"next,omitempty" doc:"give it as cursor to get the next page"`
}

// WorkloadJob is a job of the past.
type WorkloadJob struct {
	ID         string       `json:"id"`
	AtMS       int64        `json:"at_ms" doc:"when it was submitted, in milliseconds since 1970"`
	Org        string       `json:"org"`
	AppVersion string       `json:"app_version"`
	Test       string       `json:"test"`
	Priority   int          `json:"priority"`
	Target     qgjob.Target `json:"target" enum:"any,device,emulator,browserstack"`
	Run        string       `json:"run"`
	DurationMS int64        `json:"duration_ms" doc:"run time of the test in the attempt that decided the verdict, without install and reset"`
	DeadlineMS int64        `json:"deadline_ms,omitempty" doc:"of its run, from at_ms on; 0: none"`
	MaxCost    float64      `json:"max_cost,omitempty" doc:"of its run, for jobs that overflow to BrowserStack"`
}

// Fleet is the devices and organizations as they are: GET /v1/export/fleet. It is the fleet that qgjob simulate reads.
type Fleet struct {
	Devices []FleetDevice `json:"devices" nullable:"false"`
	Orgs    []FleetOrg    `json:"orgs" nullable:"false"`
}

// FleetDevice is a device of a live worker, with what was learned of its kind.
type FleetDevice struct {
	ID          string       `json:"id"`
	Target      qgjob.Target `json:"target" enum:"device,emulator,browserstack"`
	InstallMS   int64        `json:"install_ms"`
	ResetMS     int64        `json:"reset_ms"`
	MinutePrice float64      `json:"minute_price,omitempty"`
}

// FleetOrg is an organization's share, quota and budget.
type FleetOrg struct {
	ID         string  `json:"id"`
	Weight     float64 `json:"weight"`
	MaxDevices int     `json:"max_devices" doc:"most devices at once; 0: no limit"`
	MaxCost    float64 `json:"max_cost,omitempty" doc:"budget for jobs that overflow to BrowserStack; 0: none"`
}
