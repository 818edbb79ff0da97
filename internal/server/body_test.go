package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"qgjob"
	"qgjob/internal/api"
)

// sent is a transport that keeps the bodies of requests and answers each with an empty object.
type sent struct{ bodies []string }

func (s *sent) RoundTrip(r *http.Request) (*http.Response, error) {
	data, err := io.ReadAll(r.Body)
	s.bodies = append(s.bodies, string(data))
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}"))}, err
}

// bodiesOf are the bodies that the client sends.
func bodiesOf(t *testing.T, calls ...func(c *api.Client) error) []string {
	t.Helper()
	var s sent
	for _, call := range calls {
		if err := call(&api.Client{BaseURL: "http://server", HTTP: &http.Client{Transport: &s}}); err != nil {
			t.Fatal(err)
		}
	}
	return s.bodies
}

func polls(t *testing.T) []string {
	lease := api.Lease{AttemptID: "02c57c1a-2f47-4e3e-b264-b30a7e92e804", Token: "1.abc"}
	failure := qgjob.Result{
		Outcome: qgjob.OutcomeFailed, Cause: qgjob.CauseTestFailed, Message: "expected <b>\n\t\"é\" & 😀",
		Report: qgjob.Report{
			Tests: []qgjob.TestResult{
				{Title: "log in > with a wrong password", Status: qgjob.TestFailed, DurationMS: 8100, Error: "Error: \x1b[31mno\x1b[0m", File: "a.spec.js", Line: 3, Column: 9},
				{Title: "log out", Status: qgjob.TestSkipped, Quarantined: true},
			},
			Installed: true, InstallMS: 8000, ResetMS: 300, RunMS: 9000, BuildSHA256: strings.Repeat("a", 64),
			CloudSessions: []qgjob.CloudSession{{ID: "s", URL: "https://s", VideoURL: "https://v", Seconds: 61, Cost: 0.25}},
		},
	}
	success := qgjob.Result{Outcome: qgjob.OutcomePassed, Report: qgjob.Report{Tests: []qgjob.TestResult{{Title: "t", Status: qgjob.TestPassed}}}}
	poll := func(r api.PollRequest) func(*api.Client) error {
		return func(c *api.Client) error { _, err := c.Poll(t.Context(), "w", r); return err }
	}
	return bodiesOf(t,
		poll(api.PollRequest{Seq: 1, WaitMS: 30_000, Devices: []string{"P1", "P2"}}),
		poll(api.PollRequest{Seq: 2, Leases: []api.Lease{lease}, Results: []api.AttemptResult{{Lease: lease, Result: failure}, {Lease: lease, Result: success}}}))
}

func submits(t *testing.T) []string {
	submit := func(r api.SubmitRequest) func(*api.Client) error {
		return func(c *api.Client) error { _, err := c.Submit(t.Context(), r); return err }
	}
	priority := 0
	return bodiesOf(t,
		submit(api.SubmitRequest{OrgID: "acme", AppVersionID: "v1", Jobs: []api.JobSpec{{TestPath: "a.spec.js"}}, IdempotencyKey: "j"}),
		submit(api.SubmitRequest{
			OrgID: "acme", AppVersionID: "v1", BundleSHA256: strings.Repeat("b", 64), BuildSHA256: strings.Repeat("c", 64), Project: "Pixel & co", ConfigPath: "e2e/appwright.config.ts",
			Jobs: []api.JobSpec{
				{TestPath: "a.spec.js", Shard: "1/2", Priority: &priority, Target: "device", Requires: "os>=12,model=Pixel *"},
				{TestPath: "b.spec.js"},
			},
			AllowUnmatched: true, Env: map[string]string{"A": "1", "B": ""}, Secrets: map[string]string{"PASSWORD": "<é>"},
			CI:          &qgjob.CI{System: "github", Repository: "acme/app", Commit: strings.Repeat("d", 40), Branch: "main", PullRequest: "7", Actor: "kim", Workflow: "e2e", URL: "https://ci"},
			MaxFailures: 3, Video: "retain-on-failure", QueueTimeoutSeconds: 60, DeadlineSeconds: 3600, MaxCost: 12.5, CancelPrevious: true, IdempotencyKey: "k", RepeatFailed: true,
		}))
}

func heartbeats(t *testing.T) []string {
	return bodiesOf(t, func(c *api.Client) error {
		_, err := c.Heartbeat(t.Context(), "w", api.HeartbeatRequest{
			Devices: []api.DeviceReport{{
				ID: "P1", Serial: "P1", Kind: qgjob.TargetDevice, Platform: "android", Model: "Pixel 8", OSVersion: "15", State: qgjob.DeviceIdle, Message: "ok",
				Tags: []string{"lab"}, Installed: &qgjob.App{OrgID: "acme", AppVersionID: "v1"}, MinutePrice: 0.1,
				Hardware: qgjob.Hardware{ScreenWidth: 1080, BatteryPercent: 80, FreeStorage: 1 << 40, ABIs: "arm64-v8a,armeabi-v7a"},
			}},
			Leases: []api.Lease{{AttemptID: "a", Token: "1.x"}},
		})
		return err
	})
}

// TestBodiesThatTheClientSendsAreSure: they are decoded without huma's validation, which costs more than the rest of it.
func TestBodiesThatTheClientSendsAreSure(t *testing.T) {
	forms := bare().forms
	sure[api.PollRequest](t, forms, polls(t))
	sure[api.SubmitRequest](t, forms, submits(t))
	sure[api.HeartbeatRequest](t, forms, heartbeats(t))
	for b, form := range forms {
		understoodInFull(t, b.String(), form.shape)
	}
}

func sure[T any](t *testing.T, forms map[reflect.Type]form, bodies []string) {
	t.Helper()
	for _, sent := range bodies {
		b := &body[T]{}
		if !b.surely([]byte(sent), forms[reflect.TypeOf(b)].shape) {
			t.Errorf("left to huma: %s", sent)
		}
	}
}

func understoodInFull(t *testing.T, where string, s *shape) {
	t.Helper()
	if s == nil {
		t.Errorf("%s has a schema that shapeOf does not understand", where)
		return
	}
	for name, p := range s.properties {
		understoodInFull(t, where+"."+name, p.shape)
	}
	if s.items != nil {
		understoodInFull(t, where+"[]", s.items)
	}
}

// TestUnusualBodiesAreInDoubt: huma takes them, and only it knows what for.
func TestUnusualBodiesAreInDoubt(t *testing.T) {
	s := bare().forms[reflect.TypeFor[*body[api.SubmitRequest]]()].shape
	for _, unusual := range []string{
		`"priority":1,"priority":2`, `"priority":null`, `"priority":-0e0`, `"requires":"\ud800"`, "\"requires\":\"\xff\"", `"re\u0071uires":"tag=lab"`,
	} {
		var b body[api.SubmitRequest]
		if b.surely([]byte(`{"org_id":"acme","app_version_id":"v1","jobs":[{"test_path":"a",`+unusual+`}]}`), s) {
			t.Errorf("%s is taken without a doubt", unusual)
		}
	}
}

// TestBodiesMeanWhatHumaMakesOfThem changes good bodies at random. Whatever comes of that is decoded to the same, or refused for
// the same, as by huma.
func TestBodiesMeanWhatHumaMakesOfThem(t *testing.T) {
	t.Run("poll", func(t *testing.T) { meansTheSame[api.PollRequest](t, polls(t)) })
	t.Run("submit", func(t *testing.T) { meansTheSame[api.SubmitRequest](t, submits(t)) })
	t.Run("heartbeat", func(t *testing.T) { meansTheSame[api.HeartbeatRequest](t, heartbeats(t)) })
}

func meansTheSame[T any](t *testing.T, seeds []string) {
	forms := bare().forms
	accepted, refused := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		for range 10 {
			data := rapid.SampledFrom(seeds).Draw(rt, "seed")
			for range rapid.IntRange(0, 2).Draw(rt, "changes") {
				data = changed(rt, data)
			}
			got := &body[T]{}
			form := forms[reflect.TypeOf(got)]
			buffer := []byte(data)
			gotErr := got.decode(buffer, form)
			clear(buffer) // as huma's is used again
			want, wantFaults, wantErr := humas[T]([]byte(data), form)
			if fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || !slices.Equal(said(got.faults), said(wantFaults)) {
				rt.Fatalf("%s\ngot error %v, faults %v\nwant error %v, faults %v", data, gotErr, got.faults, wantErr, wantFaults)
			}
			if wantErr != nil || len(wantFaults) > 0 {
				refused++
				continue
			}
			accepted++
			if diff := cmp.Diff(want, got.Value); diff != "" {
				rt.Fatalf("%s\n%s", data, diff)
			}
		}
	})
	if accepted == 0 || refused == 0 {
		t.Errorf("%d bodies were good and %d bad: the test says nothing", accepted, refused)
	}
}

// humas decodes a body as huma does.
func humas[T any](data []byte, f form) (value T, faults []error, err error) {
	var parsed any
	if err := unmarshal(data, &parsed); err != nil {
		return value, nil, err
	}
	var res huma.ValidateResult
	path := huma.NewPathBuffer(nil, 0)
	path.Push("body")
	huma.Validate(f.registry, f.schema, path, huma.ModeWriteToServer, parsed, &res)
	if len(res.Errors) > 0 {
		return value, res.Errors, nil
	}
	err = unmarshal(data, &value)
	return value, nil, err
}

// said are the faults in one order. huma has none for unknown fields, and what it says of where they are depends on it.
func said(faults []error) []string {
	var all []string
	for _, f := range faults {
		d := f.(*huma.ErrorDetail)
		all = append(all, fmt.Sprint(d.Message, " ", d.Value))
	}
	slices.Sort(all)
	return all
}

var (
	values  = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\[[^\[\]{}]*\]|\{[^\[\]{}]*\}`)
	members = regexp.MustCompile(`"\w+":(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null|\[[^\[\]{}]*\]|\{[^\[\]{}]*\})`)
)

// changed is a body with one change.
func changed(rt *rapid.T, data string) string {
	at := func(of *regexp.Regexp) []int {
		found := of.FindAllStringIndex(data, -1)
		if len(found) == 0 {
			return []int{0, len(data)}
		}
		return rapid.SampledFrom(found).Draw(rt, "at")
	}
	switch rapid.IntRange(0, 6).Draw(rt, "change") {
	case 0: // another byte
		i := rapid.IntRange(0, len(data)).Draw(rt, "byte")
		return data[:i] + rapid.SampledFrom(strings.Split("{ } [ ] \" , : \\ - . 0 1 e n \x00 \xff é", " ")).Draw(rt, "byte") + data[min(i+1, len(data)):]
	case 1: // bytes less
		i := rapid.IntRange(0, len(data)).Draw(rt, "from")
		return data[:i] + data[min(i+rapid.IntRange(0, 9).Draw(rt, "bytes"), len(data)):]
	case 2: // a member twice
		m := at(members)
		return data[:m[1]] + "," + data[m[0]:]
	case 3: // a member less
		m := at(members)
		return data[:m[0]] + strings.TrimPrefix(data[m[1]:], ",")
	case 4: // a value twice
		v := at(values)
		return data[:v[1]] + "," + data[v[0]:]
	default: // another value, or another name
		v := at(values)
		return data[:v[0]] + rapid.SampledFrom([]string{
			`null`, `true`, `0`, `-0`, `7`, `-1`, `1.0`, `0.5`, `1e2`, `101`, `60000`, `60001`, `2592001`, `1000000001`, `9007199254740993`, `99999999999999999999`, `1e999`, `01`, `+1`,
			`""`, `" "`, `"x"`, `"passed"`, `"p\u0061ssed"`, `"errored"`, `"idle"`, `"android"`, `"on"`, `"\ud800"`, `"a\"b"`, `"\u0000"`, "\"\xff\"", "\"\n\"",
			`"` + strings.Repeat("é", 64) + `"`, `"` + strings.Repeat("é", 65) + `"`, `"` + strings.Repeat("x", 255) + `"`, `"` + strings.Repeat(`\n`, 255) + `"`, `"` + strings.Repeat("x", 16385) + `"`,
			`[]`, `{}`, `[null]`, `["x"]`, `["x",1]`, `{"a":"b"}`, `{"a":"b","a":"c"}`, `{"a":1}`, `[{}]`, `[[]]`, `[` + strings.Repeat(`"t",`, 50) + `"t"]`,
			`"seq"`, `"SEQ"`, `"org_id"`, `"Org_id"`, `"org\u005fid"`, `"unknown"`,
		}).Draw(rt, "value") + data[v[1]:]
	}
}

// TestRefusalsAreHumas asks the server and operations of the same paths whose bodies are huma's own business.
func TestRefusalsAreHumas(t *testing.T) {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("twin", "")
	config.CreateHooks = nil
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	config.Formats = map[string]huma.Format{"application/json": format, "json": format}
	config.RejectUnknownQueryParameters = true
	a := humago.New(mux, config)
	type submitTwin struct{ Body api.SubmitRequest }
	type pollTwin struct {
		ID   string `path:"id"`
		Body api.PollRequest
	}
	type heartbeatTwin struct {
		ID   string `path:"id"`
		Body api.HeartbeatRequest
	}
	huma.Register(a, operation("submit", http.MethodPost, "/v1/runs", "", "", ""), func(context.Context, *submitTwin) (*struct{}, error) { return nil, nil })
	huma.Register(a, operation("poll", http.MethodPost, "/v1/workers/{id}/poll", "", "", ""), func(context.Context, *pollTwin) (*struct{}, error) { return nil, nil })
	huma.Register(a, operation("heartbeat", http.MethodPost, "/v1/workers/{id}/heartbeat", "", "", ""), func(context.Context, *heartbeatTwin) (*struct{}, error) { return nil, nil })

	s := bare()
	compare := func(path, contentType, sent string) {
		t.Helper()
		answer := func(h http.Handler) *httptest.ResponseRecorder {
			r := httptest.NewRequest(http.MethodPost, "http://localhost"+path, strings.NewReader(sent))
			r.Header.Set("Content-Type", contentType)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			return w
		}
		got, want := answer(s), answer(mux)
		if want.Code < 400 {
			t.Errorf("%s %.200s is not refused", path, sent)
		}
		if got.Code != want.Code || !bytes.Equal(got.Body.Bytes(), want.Body.Bytes()) || got.Header().Get("Content-Type") != want.Header().Get("Content-Type") {
			t.Errorf("%s %s %.200s\n got %d %s\nwant %d %s", path, contentType, sent, got.Code, got.Body, want.Code, want.Body)
		}
	}
	const json = "application/json"
	for path, good := range map[string]string{
		"/v1/runs":                submits(t)[0],
		"/v1/workers/x/poll":      polls(t)[0],
		"/v1/workers/x/heartbeat": heartbeats(t)[0],
	} {
		for _, contentType := range []string{"text/plain", "application/x-www-form-urlencoded", "application/xml; charset=utf-8", ";+"} {
			compare(path, contentType, good)
		}
		compare(path+"?dry_run=1", json, good)
		for _, bad := range []string{
			``, ` `, `null`, `[]`, `7`, `"x"`, `{}`, `{`, `{"seq"`, `{1:2}`, `{[]:2}`, good + `{}`, good + `x`, "\xef\xbb\xbf" + good, strings.Repeat(`[`, 20_000),
			strings.Repeat(" ", api.MaxJSONBody+1), `{"` + strings.Repeat("x", 200) + `":1}`,
		} {
			compare(path, json, bad)
		}
	}
	for _, bad := range []string{
		`{"seq":1.5,"wait_ms":0,"devices":[],"leases":[],"results":[]}`,
		`{"seq":1e2,"wait_ms":0,"devices":[],"leases":[],"results":[]}`,
		`{"seq":99999999999999999999,"wait_ms":0,"devices":[],"leases":[],"results":[]}`,
		`{"seq":"1","wait_ms":60001,"devices":null,"leases":[{}],"results":[null]}`,
		`{"SEQ":1,"wait_ms":-1,"devices":[1],"leases":[],"results":{}}`,
		`{"seq":1,"wait_ms":0,"devices":[],"leases":[],"results":[{"attempt_id":"a","token":"t","outcome":"great","report":{"installed":1,"tests":[{"status":"odd"}]}}]}`,
		`{"seq":1,"wait_ms":0,"devices":[],"leases":[{"attempt_id":"` + strings.Repeat("é", 65) + `","token":"t"}],"results":[]}`,
		`{"seq":1,"wait_ms":0,"devices":[` + strings.Repeat(`"d",`, 1000) + `"d"],"leases":[],"results":[]}`,
	} {
		compare("/v1/workers/x/poll", json, bad)
	}
	const job = `"jobs":[{"test_path":"a"}]`
	for _, bad := range []string{
		`{"org_id":"a","app_version_id":"v","jobs":[]}`,
		`{"org_id":"a","app_version_id":"v","jobs":null}`,
		`{"org_id":"a","app_version_id":"v","jobs":[{"priority":"1"}]}`,
		`{"org_id":"a","app_version_id":"v","jobs":[{"test_path":"a","priority":1.0}]}`,
		`{"org_id":"a","app_version_id":null,` + job + `}`,
		`{"org_id":"a","app_version_id":"v",` + job + `,"video":"maybe","max_failures":-1,"max_cost":1e10,"deadline_seconds":604801}`,
		`{"org_id":"a","app_version_id":"v",` + job + `,"env":{"A":1}}`,
		`{"org_id":"a","app_version_id":"v",` + job + `,"env":["A"]}`,
		`{"org_id":"a","app_version_id":"v",` + job + `,"ci":{"system":7}}`,
		`{"org_id":"a","app_version_id":"v",` + job + `,"ci":{"where":"here"}}`,
		`{"org_id":"a","app_version_id":"v",` + job + `,"project":"` + strings.Repeat("x", 201) + `"}`,
	} {
		compare("/v1/runs", json, bad)
	}
}
