package server_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

// TestExport: what ran is a workload and what runs it a fleet, and the metrics say how far expected times were off.
func TestExport(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		if a := r.do(http.MethodGet, "/metrics", ""); strings.Contains(a.body, "qgjob_estimate_error{") {
			t.Error("there are errors of what was never measured")
		}
		w := r.newWorker("P1")
		id := r.submit("a.spec.js")
		timed := passed
		timed.Report.RunMS, timed.Report.InstallMS, timed.Report.ResetMS = 41_000, 60_000, 4000
		w.report(w.take("P1").Lease, timed)
		waiting := r.submit("b.spec.js")

		from := time.Now().Add(-time.Hour)
		got, err := r.ExportWorkload(t.Context(), api.WorkloadQuery{Since: from})
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Jobs) != 1 || got.LeftOut != 1 || got.Next != "" {
			t.Fatalf("workload %+v, want %s without %s", got, id, waiting)
		}
		j, at := got.Jobs[0], time.UnixMilli(got.Jobs[0].AtMS)
		want := api.WorkloadJob{
			ID: id, AtMS: j.AtMS, Org: "acme", AppVersion: "v1", Test: "a.spec.js", Priority: qgjob.DefaultPriority, Target: qgjob.TargetAny, Run: j.Run, DurationMS: 41_000,
		}
		if j != want || j.Run == "" || at.Before(from) {
			t.Errorf("job %+v, want %+v", j, want)
		}
		if got, err = r.ExportWorkload(t.Context(), api.WorkloadQuery{Since: from, OrgID: "zeta"}); err != nil || len(got.Jobs)+got.LeftOut != 0 {
			t.Errorf("of another organization: %+v, %v", got, err)
		}
		if a := r.do(http.MethodGet, "/v1/export/workload", ""); a.problem(t).Code != qgjob.CodeInvalid {
			t.Errorf("without since: %d %s", a.status, a.body)
		}

		fleet, err := r.ExportFleet(t.Context(), "")
		if err != nil {
			t.Fatal(err)
		}
		if len(fleet.Devices) != 1 || fleet.Devices[0].ID != "P1" || fleet.Devices[0].Target != qgjob.TargetDevice {
			t.Errorf("fleet %+v, want P1", fleet)
		}
		if len(fleet.Orgs) != 1 || fleet.Orgs[0] != (api.FleetOrg{ID: "acme", Weight: 1}) {
			t.Errorf("organizations %+v, want acme", fleet.Orgs)
		}
		if fleet, err = r.ExportFleet(t.Context(), "zeta"); err != nil || len(fleet.Orgs) != 0 || len(fleet.Devices) != 1 {
			t.Errorf("for another organization: %+v, %v", fleet, err)
		}

		a := r.do(http.MethodGet, "/metrics", "")
		for _, want := range []string{
			"# HELP qgjob_estimate_error How far expected times were off",
			`qgjob_estimate_error{kind="run"} 0.`,
			`qgjob_estimate_error{kind="install"} 0.5`, // 30 s was expected, 60 s it took
			`qgjob_estimate_error{kind="reset"} 0.5`,
		} {
			if !strings.Contains(a.body, want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		if strings.Contains(a.body, "a.spec.js") || strings.Contains(a.body, "acme") {
			t.Error("metrics are labelled by spec or organization")
		}
	})
}
