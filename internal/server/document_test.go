package server_test

import (
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

// document is what the tests read of the OpenAPI document.
type document struct {
	OpenAPI string `json:"openapi"`
	Paths   map[string]map[string]struct {
		OperationID string `json:"operationId"`
		Parameters  []struct {
			Name string `json:"name"`
			In   string `json:"in"`
		} `json:"parameters"`
		RequestBody content            `json:"requestBody"`
		Responses   map[string]content `json:"responses"`
	} `json:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]any `json:"properties"`
		} `json:"schemas"`
	} `json:"components"`
}

type content struct {
	Content map[string]struct {
		Schema map[string]any `json:"schema"`
	} `json:"content"`
}

func (r *running) document() document {
	r.t.Helper()
	var d document
	if err := json.Unmarshal([]byte(r.do(http.MethodGet, "/openapi.json", "").body), &d); err != nil {
		r.t.Fatal(err)
	}
	return d
}

// TestTheClientCoversTheAPI holds the OpenAPI document, which is made from the routes, against the client,
// which is written by hand.
func TestTheClientCoversTheAPI(t *testing.T) {
	r := start(t)
	d := r.document()
	if !strings.HasPrefix(d.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %s, want 3.1", d.OpenAPI)
	}
	methods := map[string]bool{}
	for m := range reflect.TypeFor[*api.Client]().Methods() {
		methods[m.Name] = true
	}
	for _, beyond := range []string{"EnsureBundle", "EnsureBuild", "FollowLog"} { // made of others
		if !methods[beyond] {
			t.Errorf("the client has no %s: take it off this list", beyond)
		}
		delete(methods, beyond)
	}
	placeholder := regexp.MustCompile(`\{(\w+)\}`)
	for path, operations := range d.Paths {
		for verb, op := range operations {
			name := strings.ToUpper(op.OperationID[:1]) + op.OperationID[1:]
			if !methods[name] {
				t.Errorf("%s %s: the client has no method %s", verb, path, name)
			}
			delete(methods, name)

			for _, p := range placeholder.FindAllStringSubmatch(path, -1) {
				documented := false
				for _, param := range op.Parameters {
					documented = documented || param.In == "path" && param.Name == p[1]
				}
				if !documented {
					t.Errorf("%s %s: parameter %s is not documented, so the handler does not get it", verb, path, p[1])
				}
			}
			if _, ok := op.Responses["default"].Content["application/problem+json"]; !ok && len(op.Responses) < 2 {
				t.Errorf("%s %s: errors are not documented", verb, path)
			}
		}
	}
	for name := range methods {
		t.Errorf("the API has no operation for the client's method %s", name)
	}
}

func TestTheDocumentedErrorIsTheRealOne(t *testing.T) {
	r := start(t)
	var documented []string
	for name := range r.document().Components.Schemas["Problem"].Properties {
		documented = append(documented, name)
	}
	var real map[string]any
	if err := json.Unmarshal([]byte(r.do(http.MethodGet, "/v1/jobs/x", "").body), &real); err != nil {
		t.Fatal(err)
	}
	var sent []string
	for name := range real {
		sent = append(sent, name)
	}
	slices.Sort(documented)
	slices.Sort(sent)
	if !slices.Equal(documented, sent) {
		t.Errorf("documented %v, sent %v", documented, sent)
	}
}

// TestBodiesAreDocumentedAsWhatTheyHold: those that are checked as they are read look like all others.
func TestBodiesAreDocumentedAsWhatTheyHold(t *testing.T) {
	r := start(t)
	d := r.document()
	for path, schema := range map[string]string{
		"/v1/runs": "SubmitRequest", "/v1/workers/{id}/poll": "PollRequest", "/v1/workers/{id}/heartbeat": "HeartbeatRequest", "/v1/workers/{id}/leave": "LeaveRequest",
	} {
		want := map[string]any{"$ref": "#/components/schemas/" + schema}
		if got := d.Paths[path]["post"].RequestBody.Content["application/json"].Schema; !reflect.DeepEqual(got, want) {
			t.Errorf("POST %s takes %v, want %v", path, got, want)
		}
		if len(d.Components.Schemas[schema].Properties) == 0 {
			t.Errorf("%s is not documented", schema)
		}
	}
	for name := range d.Components.Schemas {
		if strings.HasPrefix(name, "Body") {
			t.Errorf("%s is documented, which nobody sends", name)
		}
	}
}

func TestTheDocumentIsServedAsYAMLToo(t *testing.T) {
	r := start(t)
	if a := r.do(http.MethodGet, "/openapi.yaml", ""); a.status != http.StatusOK || !strings.Contains(a.body, "/v1/runs:") {
		t.Errorf("openapi.yaml: %d %.200s", a.status, a.body)
	}
}

func TestTheDocumentationIsOffline(t *testing.T) {
	r := start(t)
	page := r.do(http.MethodGet, "/docs", "") // redirects
	if page.status == http.StatusMovedPermanently {
		page = r.do(http.MethodGet, page.header.Get("Location"), "")
	}
	if page.status != http.StatusOK || !strings.Contains(page.body, "/openapi.json") {
		t.Fatalf("docs: %d %.500s", page.status, page.body)
	}
	links := regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(page.body, -1)
	if len(links) < 3 {
		t.Fatalf("the page loads %v", links)
	}
	for _, link := range links {
		if !strings.HasPrefix(link[1], "/") || strings.HasPrefix(link[1], "//") {
			t.Errorf("the page loads %s from elsewhere", link[1])
			continue
		}
		if a := r.do(http.MethodGet, link[1], ""); a.status != http.StatusOK || a.body == "" {
			t.Errorf("%s: %d", link[1], a.status)
		}
	}
}

func TestMetrics(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		id := r.submit("a.spec.js")
		w.report(w.take("P1").Lease, failed)
		a := r.do(http.MethodGet, "/metrics", "")
		// Attempts are counted when the dispatcher has its turn next, which is within a second.
		for deadline := time.Now().Add(10 * time.Second); !strings.Contains(a.body, "\nqgjob_dispatched_total 1") && time.Now().Before(deadline); {
			a = r.do(http.MethodGet, "/metrics", "")
		}
		if a.status != http.StatusOK {
			t.Fatalf("metrics: %d %s", a.status, a.body)
		}
		for _, want := range []string{
			`qgjob_jobs{state="queued"} 1`,
			`qgjob_jobs{state="passed"} 0`,
			`qgjob_queue_oldest_seconds `,
			`qgjob_workers 1`,
			`qgjob_devices{state="`,
			`qgjob_attempts_total{cause="test_failed",outcome="failed"} 1`,
			`qgjob_installs_total 0`,
			`qgjob_installs_saved_total 0`,
			`qgjob_leases_reaped_total 0`,
			`qgjob_dispatched_total 1`,
			`qgjob_dispatch_duration_seconds_count `,
			`qgjob_http_requests_total{route="POST /v1/runs",status="201"} 1`,
			`qgjob_http_request_duration_seconds_count{route="POST /v1/runs"} 1`,
		} {
			if !strings.Contains(a.body, "\n"+want) {
				t.Errorf("metrics lack %s", want)
			}
		}
		if strings.Contains(a.body, id) || strings.Contains(a.body, "acme") {
			t.Error("metrics are labelled by job or organization")
		}
	})
}

func TestHealthOfAServerWithoutItsStore(t *testing.T) {
	r := start(t)
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	a := r.do(http.MethodGet, "/health", "")
	var h api.Health
	if err := json.Unmarshal([]byte(a.body), &h); err != nil {
		t.Fatal(err)
	}
	if a.status != http.StatusServiceUnavailable || h.Status != "failing" || h.Store.OK || h.Store.Message == "" {
		t.Errorf("health: %d %+v", a.status, h)
	}
	r.Patience = -1
	if _, err := r.Queue(t.Context()); qgjob.ErrorCode(err) != qgjob.CodeUnavailable {
		t.Errorf("Queue = %v, want unavailable", err)
	}
}
