package server_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/server"
)

func TestSecretsAreToldToTheWorkerOnly(t *testing.T) {
	const secret = "correct horse battery staple"
	path := filepath.Join(t.TempDir(), "q.db")
	r := serve(t, openSQLite(t, path))
	const body = `{"org_id":"acme","app_version_id":"v1","jobs":[{"test_path":"tests/a.spec.js"}],
		"env":{"STAGE":"beta"},"secrets":{"PASSWORD":"` + secret + `"},"idempotency_key":"k1"}`
	submitted := r.post("/v1/runs", body)
	if submitted.status != http.StatusCreated {
		t.Fatalf("submit: %d %s", submitted.status, submitted.body)
	}
	if again := r.post("/v1/runs", body); again.status != http.StatusOK {
		t.Errorf("the same submit again: %d %s", again.status, again.body)
	}
	w := r.newWorker("P1")
	a := w.take("P1")
	if !a.Job.Environment {
		t.Errorf("the worker does not hear that there are variables: %+v", a.Job)
	}
	e, err := r.AttemptEnvironment(t.Context(), a.Lease)
	if err != nil || e.Env["STAGE"] != "beta" || e.Secrets["PASSWORD"] != secret {
		t.Errorf("the worker hears %v, %v", e, err)
	}
	forged := a.Lease
	forged.Token += "x"
	if _, err := r.AttemptEnvironment(t.Context(), forged); qgjob.ErrorCode(err) != qgjob.CodeLeaseLost {
		t.Errorf("with another token: %v", err)
	}
	texts := submitted.body
	for _, path := range []string{"/v1/runs/" + a.Job.RunID, "/v1/jobs/" + a.Job.ID, "/v1/jobs", "/v1/runs/" + a.Job.RunID + "/report"} {
		texts += r.do(http.MethodGet, path, "").body
	}
	if strings.Contains(texts, secret) {
		t.Errorf("a secret is told:\n%s", texts)
	}
	if !strings.Contains(texts, `"secret_names":["PASSWORD"]`) || !strings.Contains(texts, `"STAGE":"beta"`) {
		t.Errorf("what the tests have is not told:\n%s", texts)
	}
	for _, file := range []string{path, path + "-wal"} {
		if data, err := os.ReadFile(file); err == nil && strings.Contains(string(data), secret) {
			t.Errorf("%s holds the secret", file)
		}
	}
	w.report(a.Lease, passed)
	if _, err := r.AttemptEnvironment(t.Context(), a.Lease); qgjob.ErrorCode(err) != qgjob.CodeLeaseLost {
		t.Errorf("after the attempt's end: %v", err)
	}

	// A run that is repeated has them again, until they are forgotten.
	if _, err := r.RetryRun(t.Context(), a.Job.RunID, api.RetryRequest{}); err != nil {
		t.Fatal(err)
	}
	b := w.take("P1")
	if e, err := r.AttemptEnvironment(t.Context(), b.Lease); err != nil || e.Secrets["PASSWORD"] != secret {
		t.Errorf("at the retry the worker hears %v, %v", e, err)
	}
	w.report(b.Lease, passed)
	if err := r.store.ForgetSecrets(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	if _, err := r.RetryRun(t.Context(), a.Job.RunID, api.RetryRequest{}); qgjob.ErrorCode(err) != qgjob.CodeConflict || !strings.Contains(err.Error(), "PASSWORD") {
		t.Errorf("a retry without secrets: %v", err)
	}
}

func TestBadVariables(t *testing.T) {
	r := start(t)
	for variables, says := range map[string]string{
		`"env":{"PATH":"/tmp"}`:                             "variable PATH is the runner's own",
		`"env":{"QGJOB_EVENTS":"x"}`:                        "the runner's own",
		`"env":{"a b":"x"}`:                                 "is no name of a variable",
		`"env":{"A":"x\u0000y"}`:                            "zero byte",
		`"secrets":{"A":"abc"}`:                             "fewer than 4 characters",
		`"env":{"A":"x"},"secrets":{"A":"abcdef"}`:          "given twice",
		`"env":{"A":"` + strings.Repeat("x", 70_000) + `"}`: "at most 65536",
	} {
		a := r.post("/v1/runs", `{"org_id":"acme","app_version_id":"v1","jobs":[{"test_path":"tests/a.spec.js"}],`+variables+`}`)
		if p := a.problem(t); a.status != http.StatusUnprocessableEntity && a.status != http.StatusBadRequest || !strings.Contains(p.Detail, says) {
			t.Errorf("%.40s: %d %s", variables, a.status, p.Detail)
		}
	}
}

// Servers of one database with different keys: what would be sealed for the others in vain is refused, and a server that could
// not open what waits does not begin, for its workers would fail those jobs.
func TestAnotherKeyIsNoticed(t *testing.T) {
	st := openSQLite(t, filepath.Join(t.TempDir(), "q.db"))
	older, newer := serve(t, st), serve(t, st)
	request := api.SubmitRequest{
		OrgID: "acme", AppVersionID: "v1", Jobs: []api.JobSpec{{TestPath: "tests/a.spec.js"}}, Secrets: map[string]string{"PASSWORD": "abcdef"},
	}
	refused := func(what string, err error) {
		t.Helper()
		if qgjob.ErrorCode(err) != qgjob.CodeConflict || !strings.Contains(err.Error(), "--secret-key-file") {
			t.Errorf("%s: %v", what, err)
		}
	}
	_, err := older.Submit(t.Context(), request)
	refused("a submit to the older server", err)
	run, err := newer.Submit(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	w := newer.newWorker("P1")
	lease := w.take("P1").Lease
	if e, err := newer.AttemptEnvironment(t.Context(), lease); err != nil || e.Secrets["PASSWORD"] != "abcdef" {
		t.Errorf("the newer server opens %v, %v", e, err)
	}
	_, err = older.AttemptEnvironment(t.Context(), lease)
	refused("the older server opens", err)

	newest, err := server.New(server.Options{Store: st, SecretKey: server.NewSecretKey()})
	if err != nil {
		t.Fatal(err)
	}
	refused("a server begins beside a run that waits", newest.TakeSecrets(t.Context()))
	if err := st.ForgetSecrets(t.Context(), -time.Hour); err != nil {
		t.Fatal(err)
	}
	if e, err := newer.AttemptEnvironment(t.Context(), lease); err != nil || e.Secrets["PASSWORD"] != "abcdef" {
		t.Errorf("the secrets of a live run were forgotten: %v, %v", e, err)
	}
	w.report(lease, passed)
	if err := newest.TakeSecrets(t.Context()); err != nil {
		t.Errorf("a server begins when nothing waits: %v", err)
	}
	_, err = newer.RetryRun(t.Context(), run.ID, api.RetryRequest{})
	refused("a retry with secrets of another key", err)
}
