package server_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/phonesim"
	"qgjob/internal/server"
)

func TestWithoutTokensOnlyThisMachinesProgramsAreServed(t *testing.T) {
	r := start(t)
	addr := strings.TrimPrefix(r.BaseURL, "http://")
	_, port, _ := net.SplitHostPort(addr)
	for _, c := range []struct {
		name, host, origin string
		status             int
	}{
		{"by address", addr, "", 200},
		{"by name", "localhost:" + port, "", 200},
		{"by name in capitals", "LOCALHOST:" + port, "", 200},
		{"another loopback address", "127.1.2.3:" + port, "", 200},
		{"IPv6", "[::1]:" + port, "", 200},
		{"without a port", "localhost", "", 200},
		{"the server's own page", "localhost:" + port, "http://localhost:" + port, 200},
		{"rebound name", "evil.example:" + port, "", 403},
		{"name that begins like ours", "localhost.evil.example:" + port, "", 403},
		{"address of another machine", "192.168.1.7:" + port, "", 403},
		{"unspecified address", "0.0.0.0:" + port, "", 403},
		{"rebound name with its own page", "evil.example:" + port, "http://evil.example:" + port, 403},
		{"another site's page", addr, "https://evil.example", 403},
		{"another local program's page", addr, "http://localhost:3000", 403},
		{"a file's page", addr, "null", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, path := range []string{"/health", "/v1/queue", "/docs/", "/metrics"} {
				headers := []string{"Host", c.host}
				if c.origin != "" {
					headers = append(headers, "Origin", c.origin)
				}
				a := r.do(http.MethodGet, path, "", headers...)
				if a.status != c.status {
					t.Errorf("%s: %d %s, want %d", path, a.status, a.body, c.status)
				}
				if a.status != 200 && a.problem(t).Code != qgjob.CodeUnauthorized {
					t.Errorf("%s: %s", path, a.body)
				}
			}
		})
	}
}

func TestWithTokensEachRequestNeedsOne(t *testing.T) {
	const first, second = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	tokens, err := server.ParseTokens(strings.NewReader("# of the team\n" + first + "\n\n  " + second + "  \n"))
	if err != nil || len(tokens) != 2 {
		t.Fatalf("ParseTokens = %v, %v", tokens, err)
	}
	r := start(t, tokens...)
	for _, token := range []string{first, second} {
		r.Token = token
		if _, err := r.Queue(t.Context()); err != nil {
			t.Errorf("with a token: %v", err)
		}
		r.submit("a.spec.js")
	}
	sum := sha256.Sum256([]byte(first))
	for _, header := range []string{"", "Bearer", "Bearer ", "Bearer " + first[1:], "Bearer " + strings.ToUpper(first), "Basic " + first, first, "Bearer " + string(sum[:8])} {
		for _, path := range []string{"/v1/queue", "/v1/nothing", "/metrics"} {
			a := r.do(http.MethodGet, path, "", "Authorization", strings.Map(printable, header))
			if p := a.problem(t); a.status != http.StatusUnauthorized || p.Code != qgjob.CodeUnauthorized || a.header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s with %q: %d %s", path, header, a.status, a.body)
			}
		}
		for _, path := range []string{"/health", "/docs/", "/openapi.json"} {
			if a := r.do(http.MethodGet, path, ""); a.status != http.StatusOK {
				t.Errorf("%s without a token: %d", path, a.status)
			}
		}
		for _, path := range []string{"/docs/../v1/queue", "/docs/%2e%2e/v1/queue", "/docs/..%2fv1/queue", "/docs%2f../v1/queue", "//v1/queue", "/health/../metrics", "/openapi.json/../metrics"} {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodHead, http.MethodOptions, http.MethodConnect} {
				if a := r.do(method, path, ""); a.status == http.StatusOK {
					t.Errorf("the way through the documentation is open: %s %s: %s", method, path, a.body)
				}
			}
		}
	}
	r.Token = "wrong"
	if _, err := r.Queue(t.Context()); qgjob.ErrorCode(err) != qgjob.CodeUnauthorized || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with a wrong token: %v", err)
	}
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return 'x'
	}
	return r
}

func tokensOf(t *testing.T, lines ...string) []server.Token {
	t.Helper()
	tokens, err := server.ParseTokens(strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return tokens
}

const (
	operatorToken = "0123456789abcdef0123456789abcdef"
	acmeToken     = "fedcba9876543210fedcba9876543210"
	workerToken   = "00112233445566778899aabbccddeeff"
)

// startBound starts a server with a token that opens everything, one of acme and one of workers.
func startBound(t *testing.T) *running {
	t.Helper()
	return start(t, tokensOf(t, operatorToken, acmeToken+" org=acme", workerToken+"\tworker")...)
}

// as is a client with another token.
func (r *running) as(token string) *api.Client {
	c := *r.Client
	c.Token = token
	return &c
}

// TestATokenOpensWhatItsLineSays asks for every operation with every kind of token.
func TestATokenOpensWhatItsLineSays(t *testing.T) {
	r := startBound(t)
	byWorkers := strings.Fields("register heartbeat poll leave attemptEnvironment appendLog addArtifact holdDevice releaseDevice bundle build health")
	notByClients := strings.Fields("register heartbeat poll leave attemptEnvironment appendLog addArtifact holdDevice releaseDevice setOrganization")
	asked := map[string]bool{}
	refused := func(method, path, token string) bool {
		request, err := http.NewRequestWithContext(t.Context(), method, r.BaseURL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+token)
		answer, err := r.HTTP.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close() // some are streams that last
		return answer.StatusCode == http.StatusForbidden
	}
	for path, methods := range r.document().Paths {
		for method, op := range methods {
			asked[op.OperationID] = true
			method, path := strings.ToUpper(method), strings.NewReplacer("{id}", newUUID(), "{name}", "a.txt", "{attempt}", "1", "{sha256}", strings.Repeat("a", 64)).Replace(path)
			if refused(method, path, operatorToken) {
				t.Errorf("%s is refused to the token that opens everything", op.OperationID)
			}
			if got, want := refused(method, path, workerToken), !slices.Contains(byWorkers, op.OperationID); got != want {
				t.Errorf("%s is refused to a worker: %v, want %v", op.OperationID, got, want)
			}
			if strings.HasPrefix(path, "/v1/organizations/") && method == http.MethodGet {
				path = "/v1/organizations/acme"
			}
			if got, want := refused(method, path, acmeToken), slices.Contains(notByClients, op.OperationID); got != want {
				t.Errorf("%s is refused to a client of acme: %v, want %v", op.OperationID, got, want)
			}
		}
	}
	for _, id := range slices.Concat(byWorkers, notByClients) {
		if !asked[id] {
			t.Errorf("there is no operation %s", id)
		}
	}
	for _, token := range []string{workerToken, acmeToken} {
		if !refused(http.MethodGet, "/metrics", token) {
			t.Error("the metrics of all organizations are not for operators alone")
		}
	}
}

// Two organizations, a worker and an operator: each sees its own.
func TestAnOrganizationSeesNothingOfAnother(t *testing.T) {
	r := startBound(t)
	operator, acme, worker := r.as(operatorToken), r.as(acmeToken), r.as(workerToken)
	submit := func(c *api.Client, org string) (qgjob.Run, error) {
		return c.Submit(t.Context(), api.SubmitRequest{OrgID: org, AppVersionID: org + "-v1", Jobs: []api.JobSpec{{TestPath: "a.spec.js"}}, AllowUnmatched: true})
	}
	theirs, err := submit(operator, "zeta")
	if err != nil {
		t.Fatal(err)
	}
	w := newUUID()
	if _, err := worker.Register(t.Context(), w, api.RegisterRequest{Host: "h", Devices: []api.DeviceReport{{ID: "p1", Kind: qgjob.TargetDevice, Platform: "android", State: qgjob.DeviceIdle}}}); err != nil {
		t.Fatal(err)
	}
	got, err := worker.Poll(t.Context(), w, api.PollRequest{Seq: 1, Devices: []string{"p1"}, WaitMS: 5000})
	if err != nil || len(got.Assignments) != 1 {
		t.Fatalf("Poll = %+v, %v", got, err)
	}
	ours, err := submit(acme, "acme")
	if err != nil {
		t.Fatal(err)
	}
	their, our := theirs.Jobs[0].ID, ours.Jobs[0].ID

	var seen []any
	see := func(v any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
		seen = append(seen, v)
	}
	queue, err := acme.Queue(t.Context())
	see(queue, err)
	devices, err := acme.Devices(t.Context())
	see(devices, err)
	explained, err := acme.Explain(t.Context(), our)
	see(explained, err)
	jobs, err := acme.Jobs(t.Context(), api.JobQuery{})
	see(jobs, err)
	fleet, err := acme.ExportFleet(t.Context(), "")
	see(fleet, err)
	if all := fmt.Sprintf("%+v", seen); strings.Contains(all, "zeta") || strings.Contains(all, their) || !strings.Contains(all, "p1") {
		t.Errorf("acme sees %s", all)
	}
	if len(devices.Devices) != 1 || devices.Devices[0].State != qgjob.DeviceBusy {
		t.Errorf("acme sees devices %+v, want a busy one", devices.Devices)
	}
	all, err := operator.Devices(t.Context())
	if err != nil || len(all.Devices) != 1 || all.Devices[0].JobID != their {
		t.Errorf("the operator sees %+v, %v", all, err)
	}

	for what, err := range map[string]error{
		"submit":       second(submit(acme, "zeta")),
		"job":          second(acme.Job(t.Context(), their)),
		"cancel":       second(acme.Cancel(t.Context(), their)),
		"log":          second(acme.Log(t.Context(), their, 0, 0, 0)),
		"explain":      second(acme.Explain(t.Context(), their)),
		"artifacts":    second(acme.Artifacts(t.Context(), their)),
		"run":          second(acme.Run(t.Context(), theirs.ID)),
		"cancel run":   second(acme.CancelRun(t.Context(), theirs.ID)),
		"retry run":    second(acme.RetryRun(t.Context(), theirs.ID, api.RetryRequest{})),
		"flaky":        second(acme.Flaky(t.Context(), "zeta")),
		"builds":       second(acme.Builds(t.Context(), "zeta", "zeta-v1")),
		"bundle":       second(acme.HasBundle(t.Context(), "zeta", strings.Repeat("a", 64))),
		"webhooks":     second(acme.Webhooks(t.Context(), "zeta")),
		"organization": second(acme.Organization(t.Context(), "zeta")),
		"jobs":         second(acme.Jobs(t.Context(), api.JobQuery{OrgID: "zeta"})),
		"workload":     second(acme.ExportWorkload(t.Context(), api.WorkloadQuery{OrgID: "zeta"})),
		"own share":    acme.SetOrganization(t.Context(), "acme", api.Organization{Weight: 100}),
		"device":       acme.HoldDevice(t.Context(), "p1", api.HoldRequest{Kind: qgjob.HoldDrain}),
		"secrets":      second(acme.AttemptEnvironment(t.Context(), got.Assignments[0].Lease)),
		"a worker's":   second(submit(worker, "zeta")),
	} {
		if code := qgjob.ErrorCode(err); code != qgjob.CodeUnauthorized && code != qgjob.CodeNotFound {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// Why a device is in quarantine quotes how an attempt ended, which may be of any organization.
func TestAQuarantinesReasonIsNotForOneOrganization(t *testing.T) {
	r := startBound(t)
	operator, acme, worker := r.as(operatorToken), r.as(acmeToken), r.as(workerToken)
	if _, err := worker.Register(t.Context(), newUUID(), api.RegisterRequest{Host: "h", Devices: phones("p1", "p2")}); err != nil {
		t.Fatal(err)
	}
	if err := worker.HoldDevice(t.Context(), "p1", api.HoldRequest{Kind: qgjob.HoldQuarantine, Reason: "4 attempts in a row failed on it; the last one: install_refused (com.zeta.secret)"}); err != nil {
		t.Fatal(err)
	}
	if err := operator.HoldDevice(t.Context(), "p2", api.HoldRequest{Kind: qgjob.HoldMaintain, Reason: "new battery"}); err != nil {
		t.Fatal(err)
	}
	see := func(c *api.Client) string {
		devices, err := c.Devices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(devices)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if got := see(acme); strings.Contains(got, "com.zeta.secret") || !strings.Contains(got, "in quarantine") || !strings.Contains(got, "new battery") {
		t.Errorf("acme sees %s", got)
	}
	if got := see(operator); !strings.Contains(got, "com.zeta.secret") {
		t.Errorf("the operator sees %s", got)
	}
}

// A worker reads the files of the jobs that it has, while it has them.
func TestAWorkersTokenReadsTheFilesOfItsLeases(t *testing.T) {
	r := startBound(t)
	operator, worker := r.as(operatorToken), r.as(workerToken)
	apk, err := phonesim.BuildAPK(phonesim.App{Package: "com.example.shop", VersionCode: 7, VersionName: "1.7"})
	if err != nil {
		t.Fatal(err)
	}
	bundle, build, other := fileOf("zeta's tests"), fileOf(string(apk)), fileOf("tests of a run that has ended, or never was")
	for _, f := range []api.File{bundle, other} {
		if _, err := operator.UploadBundle(t.Context(), "zeta", f); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := operator.UploadBuild(t.Context(), "zeta", "v1", build); err != nil {
		t.Fatal(err)
	}
	_, err = operator.Submit(t.Context(), api.SubmitRequest{
		OrgID: "zeta", AppVersionID: "v1", BundleSHA256: bundle.SHA256, BuildSHA256: build.SHA256, Jobs: []api.JobSpec{{TestPath: "a.spec.js"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := (&running{Client: worker, t: t}).newWorker("p1")
	lease := w.take("p1").Lease
	read := func(c *api.Client, org, sha256, token string) qgjob.Code {
		t.Helper()
		body, err := c.Bundle(t.Context(), org, sha256, token)
		if sha256 == build.SHA256 {
			body, err = c.Build(t.Context(), org, "v1", sha256, token)
		}
		if err == nil {
			_ = body.Close()
		}
		return qgjob.ErrorCode(err)
	}
	for _, c := range []struct {
		name, org, sha256, token string
		want                     qgjob.Code
	}{
		{"the bundle of its job", "zeta", bundle.SHA256, lease.Token, ""},
		{"the build of its job", "zeta", build.SHA256, lease.Token, ""},
		{"the bundle without the lease", "zeta", bundle.SHA256, "", qgjob.CodeLeaseLost},
		{"the build without the lease", "zeta", build.SHA256, "", qgjob.CodeLeaseLost},
		{"with a lease that is none", "zeta", bundle.SHA256, "1.aaaa", qgjob.CodeLeaseLost},
		{"a bundle of another run", "zeta", other.SHA256, lease.Token, qgjob.CodeLeaseLost},
		{"a bundle that is not there", "zeta", strings.Repeat("a", 64), lease.Token, qgjob.CodeLeaseLost},
		{"a bundle of another organization", "acme", bundle.SHA256, lease.Token, qgjob.CodeLeaseLost},
	} {
		if got := read(worker, c.org, c.sha256, c.token); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	if got := read(operator, "zeta", other.SHA256, ""); got != "" {
		t.Errorf("an operator's: %s", got)
	}
	w.report(lease, passed)
	if got := read(worker, "zeta", bundle.SHA256, lease.Token); got != qgjob.CodeLeaseLost {
		t.Errorf("after its end: %q", got)
	}
}

// Who knows a worker's id can speak for it: nobody else is told it.
func TestAWorkerIsNotToldTheIDOfAnother(t *testing.T) {
	r := startBound(t)
	w := (&running{Client: r.as(workerToken), t: t}).newWorker("p1")
	answer, err := w.Register(t.Context(), newUUID(), api.RegisterRequest{Host: "h", Devices: phones("p1")})
	if err != nil || len(answer.Refused) != 1 {
		t.Fatalf("registered: %+v, %v", answer, err)
	}
	if got := answer.Refused[0].Message; strings.Contains(got, w.id) || !strings.Contains(got, w.id[:8]) || !strings.Contains(got, "on desk") {
		t.Errorf("it says: %s", got)
	}
}

// Whoever names what another organization has is answered as if there were nothing.
func TestWhatAnotherOrganizationHasCannotBeGuessed(t *testing.T) {
	r := startBound(t)
	zeta, acme := r.as(operatorToken), r.as(acmeToken)
	ctx := t.Context()
	apk, err := phonesim.BuildAPK(phonesim.App{Package: "com.example.shop", VersionCode: 7, VersionName: "1.7"})
	if err != nil {
		t.Fatal(err)
	}
	bundle, build, artifact := fileOf("zeta's tests"), fileOf(string(apk)), fileOf("zeta's video")
	hook, err := zeta.AddWebhook(ctx, api.WebhookRequest{OrgID: "zeta", URL: "https://hooks.example/zeta"})
	if err = errors.Join(err,
		second(zeta.UploadBundle(ctx, "zeta", bundle)), second(zeta.UploadBuild(ctx, "zeta", "v1", build)),
		zeta.Quarantine(ctx, api.QuarantineRequest{OrgID: "zeta", TestPath: "a.spec.js", Title: "buys", Reason: "r"}),
	); err != nil {
		t.Fatal(err)
	}
	ci := &qgjob.CI{Repository: "r", Branch: "main", Workflow: "w"}
	run, err := zeta.Submit(ctx, api.SubmitRequest{
		OrgID: "zeta", AppVersionID: "v1", BundleSHA256: bundle.SHA256, BuildSHA256: build.SHA256, IdempotencyKey: "k", CI: ci, AllowUnmatched: true,
		Jobs: []api.JobSpec{{TestPath: "a.spec.js"}, {TestPath: "b.spec.js"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w := (&running{Client: r.as(workerToken), t: t}).newWorker("p1")
	a := w.take("p1")
	if err := errors.Join(second(w.AppendLog(ctx, a.Lease, 0, []byte("zeta's log"))), second(w.AddArtifact(ctx, a.Lease, "video.webm", artifact))); err != nil {
		t.Fatal(err)
	}
	noHash, none := strings.Repeat("a", 64), newUUID()

	// The same question about what zeta has and about what nobody has is answered alike.
	job := a.Job.ID
	for _, q := range []struct{ method, path, body, theirs, nobodys string }{
		{"GET", "/v1/runs/ID", "", run.ID, none},
		{"GET", "/v1/runs/ID/report", "", run.ID, none},
		{"GET", "/v1/runs/ID/events", "", run.ID, none},
		{"POST", "/v1/runs/ID/cancel", "", run.ID, none},
		{"POST", "/v1/runs/ID/retry", "{}", run.ID, none},
		{"GET", "/v1/jobs/ID", "", job, none},
		{"GET", "/v1/jobs/ID/events", "", job, none},
		{"GET", "/v1/jobs/ID/log", "", job, none},
		{"GET", "/v1/jobs/ID/explanation", "", job, none},
		{"POST", "/v1/jobs/ID/cancel", "", job, none},
		{"GET", "/v1/jobs/ID/artifacts", "", job, none},
		{"GET", "/v1/jobs/ID/artifacts/1/video.webm", "", job, none},
		{"GET", "/v1/jobs?run_id=ID", "", run.ID, none},
		{"GET", "/v1/jobs?cursor=ID", "", job, none},
		{"GET", "/v1/export/workload?since=2020-01-01T00:00:00Z&cursor=ID", "", job, none},
		{"DELETE", "/v1/webhooks/ID", "", hook.ID, none},
		{"GET", "/v1/webhooks/ID/deliveries", "", hook.ID, none},
		{"GET", "/v1/bundles/ID?org_id=acme", "", bundle.SHA256, noHash},
		{"HEAD", "/v1/bundles/ID?org_id=acme", "", bundle.SHA256, noHash},
		{"GET", "/v1/builds/ID?org_id=acme&app_version_id=v1", "", build.SHA256, noHash},
		{"HEAD", "/v1/builds/ID?org_id=acme&app_version_id=v1", "", build.SHA256, noHash},
		{"GET", "/v1/bundles/ID?org_id=zeta", "", bundle.SHA256, noHash},
		{"GET", "/v1/builds/ID?org_id=zeta&app_version_id=v1", "", build.SHA256, noHash},
		{"GET", "/v1/bundles/ID?org_id=acme&org_id=zeta", "", bundle.SHA256, noHash},
		{"POST", "/v1/runs", `{"org_id":"acme","app_version_id":"v1","bundle_sha256":"ID","jobs":[{"test_path":"a.spec.js"}]}`, bundle.SHA256, noHash},
		{"POST", "/v1/runs", `{"org_id":"acme","app_version_id":"v1","build_sha256":"ID","jobs":[{"test_path":"a.spec.js"}]}`, build.SHA256, noHash},
		{"POST", "/v1/runs", `{"org_id":"acme","org_id":"ID","app_version_id":"v1","jobs":[{"test_path":"a.spec.js"}]}`, "zeta", "nobody"},
		{"GET", "/v1/organizations/ID", "", "zeta", "nobody"},
		{"GET", "/v1/flaky?org_id=ID", "", "zeta", "nobody"},
		{"GET", "/v1/webhooks?org_id=ID", "", "zeta", "nobody"},
		{"GET", "/v1/builds?org_id=ID&app_version_id=v1", "", "zeta", "nobody"},
		{"GET", "/v1/builds?org_id=acme&app_version_id=ID", "", "v1", "v0"},
		{"POST", "/v1/quarantine/release", `{"org_id":"acme","test_path":"ID","title":"buys"}`, "a.spec.js", "c.spec.js"},
		{"POST", "/v1/quarantine/release", `{"org_id":"ID","test_path":"a.spec.js","title":"buys"}`, "zeta", "nobody"},
	} {
		ask := func(id string) string {
			got := r.do(q.method, strings.ReplaceAll(q.path, "ID", id), strings.ReplaceAll(q.body, "ID", id), "Authorization", "Bearer "+acmeToken, "Content-Type", "application/json")
			return fmt.Sprintf("%d %s", got.status, strings.ReplaceAll(got.body, id, "ID"))
		}
		if theirs, nobodys := ask(q.theirs), ask(q.nobodys); theirs != nobodys {
			t.Errorf("%s %s %s: %s, but of what nobody has: %s", q.method, q.path, q.body, theirs, nobodys)
		}
	}

	// What acme submits under the same names is its own, and leaves zeta's as it is.
	ours, err := acme.Submit(ctx, api.SubmitRequest{
		OrgID: "acme", AppVersionID: "v1", IdempotencyKey: "k", CI: ci, CancelPrevious: true, AllowUnmatched: true, Jobs: []api.JobSpec{{TestPath: "b.spec.js"}},
	})
	if err != nil || ours.OrgID != "acme" || ours.PreviousID != "" || ours.Jobs[0].BuildSHA256 != "" {
		t.Errorf("acme's run is %+v, %v", ours, err)
	}
	left, err := zeta.Run(ctx, run.ID)
	if err != nil {
		t.Error(err)
	}
	for _, j := range left.Jobs {
		if j.State != qgjob.Running && j.State != qgjob.Queued {
			t.Errorf("zeta's job is %s", j.State)
		}
	}
	if hooks, err := zeta.Webhooks(ctx, "zeta"); err != nil || len(hooks.Webhooks) != 1 {
		t.Errorf("zeta's webhooks: %+v, %v", hooks, err)
	}
}

func second[T any](_ T, err error) error { return err }

// What editors put around lines changes nothing of what a token opens.
func TestATokenFileFromAnyEditor(t *testing.T) {
	tokens := tokensOf(t, operatorToken+"\r", "\r", acmeToken+" \t org=acme \r", "  # "+strings.Repeat("x", 1000)+"\r", workerToken+"\tworker\r")
	r := start(t, tokens...)
	for token, want := range map[string]string{operatorToken: "", acmeToken: "belongs to organization acme", workerToken: "is a worker's"} {
		err := r.as(token).SetOrganization(t.Context(), "acme", api.Organization{Weight: 2})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestTokenFilesThatCannotBeUsed(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	for _, file := range []string{
		"", "\n# nothing\n", "short\n", "0123456789abcdef 0123456789abcdef\n",
		token + " admin\n", token + " org=\n", token + " org=a/b\n", token + " worker org=acme\n", token + "\n" + token + " worker\n",
		"\ufeff" + token + "\n", token + "\u200b\n", "org=a-name-as-long-as-a-token-itself\n",
	} {
		_, err := server.ParseTokens(strings.NewReader(file))
		if qgjob.ErrorCode(err) != qgjob.CodeInvalid || strings.Contains(err.Error(), token) {
			t.Errorf("ParseTokens(%q) = %v, want invalid", file, err)
		}
	}
}

func TestCheckListen(t *testing.T) {
	for addr, local := range map[string]bool{
		"127.0.0.1:8000": true, "localhost:8000": true, "[::1]:0": true, "127.8.8.8:1": true,
		"0.0.0.0:8000": false, ":8000": false, "[::]:8000": false, "192.168.1.7:8000": false, "build-host:8000": false,
	} {
		if err := server.CheckListen(addr, false); (err == nil) != local {
			t.Errorf("CheckListen(%s) without tokens = %v", addr, err)
		}
		if err := server.CheckListen(addr, true); err != nil {
			t.Errorf("CheckListen(%s) with tokens = %v", addr, err)
		}
	}
	for _, addr := range []string{"", "8000", "127.0.0.1", "::1"} {
		if err := server.CheckListen(addr, true); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("CheckListen(%q) = %v, want invalid", addr, err)
		}
	}
}

func TestServeRefusesAnOpenListenerWithoutTokens(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	st := openSQLite(t, filepath.Join(t.TempDir(), "q.db"))
	s, err := server.New(server.Options{Store: st, SecretKey: server.NewSecretKey(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(context.Background(), l); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
		t.Errorf("Serve = %v, want a refusal", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("the listener is still open")
	}
}

func TestRequestsAreLoggedWithoutTheirSecrets(t *testing.T) {
	const token = "0123456789abcdef0123456789abcdef"
	var log strings.Builder
	st := openSQLite(t, filepath.Join(t.TempDir(), "q.db"))
	s, err := server.New(server.Options{Store: st, SecretKey: server.NewSecretKey(), Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})), Tokens: tokensOf(t, token)})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, l) }()
	c := &api.Client{BaseURL: "http://" + l.Addr().String(), HTTP: api.NewHTTP(), Token: token}
	defer c.HTTP.CloseIdleConnections()
	if _, err := c.Submit(t.Context(), api.SubmitRequest{OrgID: "acme", AppVersionID: "v1", Jobs: []api.JobSpec{{TestPath: "hush.spec.js"}}}); err != nil {
		t.Error(err)
	}
	if _, err := c.AppendLog(t.Context(), api.Lease{AttemptID: newUUID(), Token: "1.lease-secret"}, 0, []byte("log")); qgjob.ErrorCode(err) != qgjob.CodeLeaseLost {
		t.Errorf("AppendLog = %v", err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"path=/v1/runs", "status=201", "status=410"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s", want)
		}
	}
	for _, secret := range []string{token, "lease-secret", "hush"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("the log holds %s:\n%s", secret, log.String())
		}
	}
}
