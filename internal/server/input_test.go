package server_test

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/server"
)

// valid is a submit with one of its parts replaced.
func valid(old, replacement string) string {
	const body = `{"org_id":"acme","app_version_id":"v1","jobs":[{"test_path":"a.spec.js","priority":1,"target":"device"}]}`
	if !strings.Contains(body, old) {
		panic(old)
	}
	return strings.Replace(body, old, replacement, 1)
}

func TestBadSubmits(t *testing.T) {
	r := start(t)
	if a := r.post("/v1/runs", valid("", "")); a.status != http.StatusCreated {
		t.Fatalf("the valid submit: %d %s", a.status, a.body)
	}
	long := strings.Repeat("a", 10_000)
	for _, c := range []struct {
		name, body string
		says       string // what the message must name
	}{
		{"no body", ``, "body is missing"},
		{"broken JSON", `{"org_id":`, "broken JSON"},
		{"two values", valid("", "") + `{}`, "broken JSON"},
		{"no object", `[]`, "expected object"},
		{"null", `null`, "expected object"},
		{"no org", valid(`"org_id":"acme",`, ``), "org_id is missing"},
		{"empty org", valid(`acme`, ``), "org_id is missing"},
		{"org is a number", valid(`"acme"`, `7`), "org_id"},
		{"no app version", valid(`"app_version_id":"v1",`, ``), "app_version_id is missing"},
		{"empty app version", valid(`"v1"`, `""`), "app_version_id is missing"},
		{"no jobs", valid(`[{"test_path":"a.spec.js","priority":1,"target":"device"}]`, `[]`), "jobs"},
		{"jobs null", valid(`[{"test_path":"a.spec.js","priority":1,"target":"device"}]`, `null`), "jobs"},
		{"no test path", valid(`"test_path":"a.spec.js",`, ``), "test_path is missing"},
		{"empty test path", valid(`a.spec.js`, ``), "test_path is missing"},
		{"blank test path", valid(`a.spec.js`, `  `), "test_path is missing"},
		{"absolute test path", valid(`a.spec.js`, `/etc/passwd`), "absolute"},
		{"windows test path", valid(`a.spec.js`, `C:/a.spec.js`), "absolute"},
		{"path leaves the project", valid(`a.spec.js`, `tests/../../a.spec.js`), "leaves the test project"},
		{"backslash in the path", valid(`a.spec.js`, `tests\\a.spec.js`), "backslash"},
		{"control character in the path", valid(`a.spec.js`, `a\u0000.spec.js`), "control characters"},
		{"long path", valid(`a.spec.js`, long), "10000 bytes"},
		{"fractional priority", valid(`"priority":1`, `"priority":1.5`), "priority: expected integer, not 1.5"},
		{"fractional priority without a fraction", valid(`"priority":1`, `"priority":1.0`), "priority: number 1.0 is not an integer"},
		{"priority as text", valid(`"priority":1`, `"priority":"1"`), `priority: expected integer, not \"1\"`},
		{"priority below 0", valid(`"priority":1`, `"priority":-1`), "priority -1 is out of range"},
		{"priority above 1000", valid(`"priority":1`, `"priority":1001`), "priority 1001 is out of range"},
		{"priority over 64 bits", valid(`"priority":1`, `"priority":92233720368547758080`), "not an integer"},
		{"unknown target", valid(`"target":"device"`, `"target":"toaster"`), `target \"toaster\" is unknown`},
		{"newline in an id", valid(`acme`, `ac\nme`), "org_id"},
		{"slash in an id", valid(`acme`, `ac/me`), "org_id"},
		{"comma in an id", valid(`"v1"`, `"v,1"`), "app_version_id"},
		{"space in an id", valid(`"v1"`, `"v 1"`), "app_version_id"},
		{"dots for an id", valid(`acme`, `..`), "org_id"},
		{"id of 10,000 characters", valid(`acme`, long), "10000 bytes"},
		{"other id of 10,000 characters", valid(`"v1"`, `"`+long+`"`), "10000 bytes"},
		{"unknown field", valid(`"org_id"`, `"prioritty":2,"org_id"`), `unknown field \"prioritty\"`},
		{"unknown field of a job", valid(`"priority"`, `"retries":2,"priority"`), `unknown field \"jobs[0].retries\"`},
		{"field in other letters", valid(`"org_id"`, `"ORG_ID"`), `unknown field \"ORG_ID\"`},
		{"second of two jobs", valid(`"target":"device"}]`, `"target":"device"},{"test_path":"/b"}]`), "jobs[1]: test_path"},
		{"bundle that is no hash", valid(`"org_id"`, `"bundle_sha256":"xyz","org_id"`), "bundle_sha256"},
		{"bundle that is not there", valid(`"org_id"`, `"bundle_sha256":"`+fileOf("nowhere").SHA256+`","org_id"`), "bundle_sha256"},
		{"build that is no hash", valid(`"org_id"`, `"build_sha256":"../x","org_id"`), "build_sha256"},
		{"config outside the project", valid(`"org_id"`, `"config_path":"../appwright.config.ts","org_id"`), "config_path"},
		{"control character in the project's name", valid(`"org_id"`, `"project":"a\u001bb","org_id"`), "project"},
		{"key of 10,000 characters", valid(`"org_id"`, `"idempotency_key":"`+long+`","org_id"`), "idempotency_key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := r.post("/v1/runs", c.body)
			p := a.problem(t)
			if a.status != http.StatusUnprocessableEntity || p.Code != qgjob.CodeInvalid || !strings.Contains(a.body, c.says) {
				t.Errorf("answered %d %s; want 422 that says %q", a.status, a.body, c.says)
			}
			if len(p.Detail) > 1000 {
				t.Errorf("a message of %d bytes", len(p.Detail))
			}
		})
	}
	if list, err := r.Jobs(t.Context(), api.JobQuery{}); err != nil || len(list.Jobs) != 1 {
		t.Errorf("jobs afterwards: %+v, %v; want the valid one only", list, err)
	}
}

func TestBadRequests(t *testing.T) {
	r := start(t)
	unknown := newUUID()
	const json = "application/json"
	for _, c := range []struct {
		method, path, contentType, body string
		status                          int
		code                            qgjob.Code
		says                            string
	}{
		{"GET", "/", "", "", 404, qgjob.CodeNotFound, "/docs"},
		{"GET", "/v1/nothing", "", "", 404, qgjob.CodeNotFound, "/v1/nothing"},
		{"DELETE", "/v1/jobs/" + unknown, "", "", 405, qgjob.CodeInvalid, "DELETE"},
		{"GET", "/v1/runs", "", "", 405, qgjob.CodeInvalid, "POST"},
		{"POST", "/v1/runs", "text/plain", valid("", ""), 415, qgjob.CodeInvalid, "application/json"},
		{"POST", "/v1/runs", "application/x-www-form-urlencoded", valid("", ""), 415, qgjob.CodeInvalid, "application/json"},
		{"POST", "/v1/runs?dry_run=1", json, valid("", ""), 422, qgjob.CodeInvalid, "dry_run"},
		{"GET", "/v1/jobs/" + unknown, "", "", 404, qgjob.CodeNotFound, unknown},
		{"GET", "/v1/jobs/" + strings.ToUpper(unknown), "", "", 422, qgjob.CodeInvalid, "UUID"},
		{"GET", "/v1/jobs/1", "", "", 422, qgjob.CodeInvalid, "UUID"},
		{"GET", "/v1/jobs/" + unknown + "'--", "", "", 422, qgjob.CodeInvalid, "UUID"},
		{"GET", "/v1/jobs/" + strings.Repeat("a", 10_000), "", "", 422, qgjob.CodeInvalid, "UUID"},
		{"GET", "/v1/runs/" + unknown, "", "", 404, qgjob.CodeNotFound, unknown},
		{"GET", "/v1/runs/x", "", "", 422, qgjob.CodeInvalid, "UUID"},
		{"POST", "/v1/jobs/" + unknown + "/cancel", "", "", 404, qgjob.CodeNotFound, unknown},
		{"POST", "/v1/jobs/x/cancel", "", "", 422, qgjob.CodeInvalid, "UUID"},
		{"GET", "/v1/jobs/" + unknown + "/events", "", "", 404, qgjob.CodeNotFound, unknown},
		{"GET", "/v1/jobs/" + unknown + "/events?after=x", "", "", 422, qgjob.CodeInvalid, "after"},
		{"GET", "/v1/jobs/" + unknown + "/log", "", "", 404, qgjob.CodeNotFound, unknown},
		{"GET", "/v1/jobs/" + unknown + "/log?offset=-1", "", "", 422, qgjob.CodeInvalid, "offset"},
		{"GET", "/v1/jobs/" + unknown + "/log?wait_ms=60001", "", "", 422, qgjob.CodeInvalid, "wait_ms"},
		{"GET", "/v1/jobs?limit=0", "", "", 422, qgjob.CodeInvalid, "limit"},
		{"GET", "/v1/jobs?state=sleeping", "", "", 422, qgjob.CodeInvalid, "state"},
		{"GET", "/v1/jobs?orgid=acme", "", "", 422, qgjob.CodeInvalid, "orgid"},
		{"GET", "/v1/jobs?org_id=ac%2Fme", "", "", 422, qgjob.CodeInvalid, "org_id"},
		{"GET", "/v1/jobs?run_id=7", "", "", 422, qgjob.CodeInvalid, "UUID"},
		{"GET", "/v1/jobs?cursor=made-up", "", "", 422, qgjob.CodeInvalid, "cursor"},
		{"GET", "/v1/queue?org=acme", "", "", 422, qgjob.CodeInvalid, "org"},
		{"PUT", "/v1/workers/me", json, `{"host":"h","version":"v","devices":[]}`, 422, qgjob.CodeInvalid, "UUID"},
		{"PUT", "/v1/workers/" + unknown, json, `{"host":"h","version":"v"}`, 422, qgjob.CodeInvalid, "devices is missing"},
		{"PUT", "/v1/workers/" + unknown, json, `{"host":"h","version":"v","devices":[{"id":"","serial":"","kind":"fridge","platform":"android","model":"","os_version":"","state":"idle"}]}`, 422, qgjob.CodeInvalid, "kind"},
		{"POST", "/v1/workers/" + unknown + "/poll", json, `{"seq":1,"wait_ms":600000,"devices":[],"leases":[],"results":[]}`, 422, qgjob.CodeInvalid, "wait_ms"},
		{"POST", "/v1/attempts/" + unknown + "/log?offset=0", "application/octet-stream", "x", 422, qgjob.CodeInvalid, api.LeaseTokenHeader},
		{"POST", "/v1/attempts/x/log?offset=0", "application/octet-stream", "x", 422, qgjob.CodeInvalid, ""},
		{"GET", "/v1/bundles/" + fileOf("x").SHA256, "", "", 422, qgjob.CodeInvalid, "org_id is missing"},
		{"GET", "/v1/bundles/x?org_id=acme", "", "", 422, qgjob.CodeInvalid, "SHA-256"},
		{"GET", "/v1/bundles/" + fileOf("x").SHA256 + "?org_id=acme", "", "", 404, qgjob.CodeNotFound, "upload"},
		{"PUT", "/v1/bundles/" + fileOf("x").SHA256 + "?org_id=acme", "application/octet-stream", "y", 422, qgjob.CodeInvalid, "SHA-256"},
		{"PUT", "/v1/bundles/" + fileOf("x").SHA256 + "?org_id=..", "application/octet-stream", "x", 422, qgjob.CodeInvalid, "org_id"},
		{"GET", "/v1/builds/" + fileOf("x").SHA256 + "?org_id=acme&app_version_id=v1", "", "", 404, qgjob.CodeNotFound, "upload"},
		{"PUT", "/v1/builds/" + fileOf("x").SHA256 + "?org_id=acme", "application/octet-stream", "x", 422, qgjob.CodeInvalid, "app_version_id"},
	} {
		t.Run(c.method+" "+c.path[:min(len(c.path), 80)], func(t *testing.T) {
			a := r.do(c.method, c.path, c.body, "Content-Type", c.contentType)
			if p := a.problem(t); a.status != c.status || p.Code != c.code || !strings.Contains(p.Detail, c.says) {
				t.Errorf("answered %d %s; want %d %s that says %q", a.status, a.body, c.status, c.code, c.says)
			}
		})
	}
}

// counted yields zeros without end and counts them.
type counted struct{ n atomic.Int64 }

func (c *counted) Read(p []byte) (int, error) {
	clear(p)
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func TestHugeBodiesAreRefusedUnread(t *testing.T) {
	r := start(t)
	for _, c := range []struct {
		method, path, contentType string
		size                      int64
		most                      int64 // of the body that may have left the client
	}{
		{"POST", "/v1/runs", "application/json", 100 << 20, 16 << 20},
		{"POST", "/v1/runs", "application/json", -1, 16 << 20}, // chunked: does not say its size beforehand
		{"PUT", "/v1/bundles/" + fileOf("x").SHA256 + "?org_id=acme", "application/octet-stream", api.MaxBundleSize + 1, 16 << 20},
		{"PUT", "/v1/builds/" + fileOf("x").SHA256 + "?org_id=acme&app_version_id=v1", "application/octet-stream", api.MaxBuildSize + 1, 16 << 20},
	} {
		t.Run(fmt.Sprint(c.method, " ", c.path[:8], " ", c.size), func(t *testing.T) {
			body := &counted{}
			req, err := http.NewRequestWithContext(t.Context(), c.method, r.BaseURL+c.path, io.NopCloser(body))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = c.size
			req.Header.Set("Content-Type", c.contentType)
			resp, err := r.HTTP.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			data, err := io.ReadAll(resp.Body)
			if err != nil {
				t.Fatal(err)
			}
			if p := (answer{resp.StatusCode, resp.Header, string(data)}).problem(t); resp.StatusCode != http.StatusRequestEntityTooLarge || p.Code != qgjob.CodeTooLarge {
				t.Errorf("answered %d %+v", resp.StatusCode, p)
			}
			if n := body.n.Load(); n > c.most {
				t.Errorf("%d bytes of the body were sent", n)
			}
		})
	}
}

func FuzzSubmit(f *testing.F) {
	for _, seed := range []string{
		valid("", ""), ``, `{}`, `[]`, `null`, `{"org_id":"acme"}`, valid("1", "1e3"), valid("1", "-0"), valid("a.spec.js", `\ud800`), valid("acme", "é"),
		valid(`"org_id"`, `"idempotency_key":"k","repeat_failed":true,"org_id"`), valid("a.spec.js", "../a"), valid(`"priority":1`, `"priority":null`),
	} {
		f.Add([]byte(seed))
	}
	dir := f.TempDir()
	st := openSQLite(f, filepath.Join(dir, "q.db"))
	blobs, err := blob.OpenDir(filepath.Join(dir, "blobs"))
	if err != nil {
		f.Fatal(err)
	}
	s, err := server.New(server.Options{SecretKey: server.NewSecretKey(), Store: st, Blobs: blobs, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req := httptest.NewRequest(http.MethodPost, "http://localhost/v1/runs", bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, req)
		got := answer{w.Code, w.Header(), w.Body.String()}
		switch {
		case got.status == http.StatusCreated || got.status == http.StatusOK:
			// What was accepted can be read back as what it was understood to be.
			if !strings.Contains(got.body, `"state":"queued"`) {
				t.Errorf("%q was answered with %s", body, got.body)
			}
		case got.status < 400 || got.status >= 500:
			t.Errorf("%q was answered with %d %s", body, got.status, got.body)
		default:
			got.problem(t)
		}
	})
}
