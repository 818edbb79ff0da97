package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qgjob"
	"qgjob/internal/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client makes a Client of a test's own server, whose connections end with the test.
func client(t *testing.T, h http.HandlerFunc) *api.Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c := &api.Client{BaseURL: srv.URL, HTTP: api.NewHTTP(), Patience: 10 * time.Second}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c
}

// nowhere is an address at which nobody listens.
func nowhere(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return "http://" + l.Addr().String()
}

func problem(w http.ResponseWriter, code qgjob.Code, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(api.Status(code))
	_ = json.NewEncoder(w).Encode(api.Problem{Code: code, Detail: detail, Status: api.Status(code)})
}

func TestErrorsKeepTheirCode(t *testing.T) {
	for _, code := range []qgjob.Code{qgjob.CodeInvalid, qgjob.CodeNotFound, qgjob.CodeConflict, qgjob.CodeLeaseLost, qgjob.CodeUnauthorized, qgjob.CodeTooLarge, qgjob.CodeInternal} {
		c := client(t, func(w http.ResponseWriter, _ *http.Request) { problem(w, code, "because") })
		_, err := c.Job(t.Context(), "x")
		if e, ok := errors.AsType[*qgjob.Error](err); !ok || e.Code != code || e.Message != "because" {
			t.Errorf("%s came out as %#v", code, err)
		}
	}
}

func TestAnswersThatAreNoQgjobServers(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/queue" {
			http.Error(w, "<h1>gateway</h1>", http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, "<h1>hello</h1>")
	})
	if _, err := c.Queue(t.Context()); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
		t.Errorf("Queue = %v", err)
	}
	if _, err := c.Devices(t.Context()); qgjob.ErrorCode(err) != qgjob.CodeInternal {
		t.Errorf("Devices = %v", err)
	}
}

func TestUnreachableServer(t *testing.T) {
	c := &api.Client{BaseURL: nowhere(t), HTTP: api.NewHTTP(), Patience: 300 * time.Millisecond}
	start := time.Now()
	_, err := c.Queue(t.Context())
	if qgjob.ErrorCode(err) != qgjob.CodeUnavailable || !strings.Contains(err.Error(), c.BaseURL) {
		t.Errorf("error %v, want unavailable naming %s", err, c.BaseURL)
	}
	if _, ok := errors.AsType[*net.OpError](err); !ok {
		t.Errorf("error %#v hides the error of the connection", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("gave up after %v with a patience of %v", took, c.Patience)
	}
}

func TestUnusableURL(t *testing.T) {
	for _, u := range []string{"", "127.0.0.1:8000", "localhost", "ftp://x", "http://", "http://[::1"} {
		_, err := (&api.Client{BaseURL: u}).Queue(t.Context())
		if qgjob.ErrorCode(err) != qgjob.CodeInvalid {
			t.Errorf("URL %q: %v, want invalid", u, err)
		}
	}
}

func TestTheCallersContextEndsARequest(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := c.Queue(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestASubmitIsRepeatedUnderOneKey(t *testing.T) {
	var keys []string
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		var s api.SubmitRequest
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			t.Error(err)
		}
		keys = append(keys, s.IdempotencyKey)
		switch len(keys) {
		case 1:
			problem(w, qgjob.CodeUnavailable, "commit of unknown outcome")
		case 2:
			panic(http.ErrAbortHandler) // the connection breaks
		default:
			_ = json.NewEncoder(w).Encode(qgjob.Run{ID: "r"})
		}
	})
	run, err := c.Submit(t.Context(), api.SubmitRequest{OrgID: "acme"})
	if err != nil || run.ID != "r" {
		t.Fatalf("Submit = %+v, %v", run, err)
	}
	if len(keys) != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] {
		t.Errorf("keys of the tries: %q, want one key three times", keys)
	}
}

func TestPollIsNeverRepeated(t *testing.T) {
	var tries atomic.Int32
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		var p map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Error(err)
		}
		for _, field := range []string{"devices", "leases", "results"} {
			if string(p[field]) != "[]" {
				t.Errorf("%s is %s, want []", field, p[field])
			}
		}
		problem(w, qgjob.CodeUnavailable, "later")
	})
	if _, err := c.Poll(t.Context(), "w", api.PollRequest{Seq: 1}); qgjob.ErrorCode(err) != qgjob.CodeUnavailable {
		t.Errorf("Poll = %v", err)
	}
	if tries.Load() != 1 {
		t.Errorf("%d tries, want one", tries.Load())
	}
}

func TestHealthOfAFailingServer(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_ = json.NewEncoder(w).Encode(api.Health{Status: "failing"})
	})
	if h, err := c.Health(t.Context()); err != nil || h.Status != "failing" {
		t.Errorf("Health = %+v, %v", h, err)
	}
}

func TestUploadAsksFirstAndSendsAgain(t *testing.T) {
	var calls []string
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		calls = append(calls, r.Method)
		body, _ := io.ReadAll(r.Body)
		switch len(calls) {
		case 1:
			w.WriteHeader(http.StatusNotFound)
		case 2:
			problem(w, qgjob.CodeUnavailable, "disk full")
		case 3:
			if string(body) != "hello" || r.ContentLength != 5 {
				t.Errorf("second try sent %q (%d bytes)", body, r.ContentLength)
			}
			_ = json.NewEncoder(w).Encode(api.BlobStored{Size: 5})
		}
	})
	f := api.File{SHA256: "ab", Size: 5, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("hello")), nil }}
	for i, want := range []bool{true, false} {
		if uploaded, err := c.EnsureBundle(t.Context(), "acme", f); err != nil || uploaded != want {
			t.Errorf("EnsureBundle %d = %v, %v; want %v", i, uploaded, err, want)
		}
	}
	if got := strings.Join(calls, " "); got != "HEAD PUT PUT HEAD" {
		t.Errorf("calls: %s", got)
	}
}

// sendEvents answers with the events from number first on.
func sendEvents(w http.ResponseWriter, events ...qgjob.Event) {
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, ": hello\n\n")
	for _, e := range events {
		data, _ := json.Marshal(e)
		fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.Seq, data)
	}
	w.(http.Flusher).Flush()
}

func TestWatchJobReconnects(t *testing.T) {
	event := func(seq int, s qgjob.JobState) qgjob.Event { return qgjob.Event{JobID: "j", Seq: seq, State: s} }
	var asked []string
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.Query().Get("after"))
		switch len(asked) {
		case 1:
			sendEvents(w, event(1, qgjob.Queued), event(2, qgjob.Running))
			panic(http.ErrAbortHandler)
		case 2:
			problem(w, qgjob.CodeUnavailable, "starting")
		case 3:
			sendEvents(w) // a shutdown: the stream ends without an event
		case 4:
			fmt.Fprint(w, "data: {\"seq\":3,\"sta") // cut off in the middle
		default:
			sendEvents(w, event(2, qgjob.Running), event(3, qgjob.Passed))
		}
	})
	var seen []int
	err := c.WatchJob(t.Context(), "j", 0, func(e qgjob.Event) error {
		seen = append(seen, e.Seq)
		return nil
	})
	if err != nil || fmt.Sprint(seen) != "[1 2 3]" {
		t.Errorf("WatchJob = %v, saw %v; want each event once", err, seen)
	}
	if got := strings.Join(asked, " "); got != "0 2 2 2 2" {
		t.Errorf("asked for events after %s", got)
	}
}

func TestWatchJobEnds(t *testing.T) {
	stop := errors.New("stop")
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   func(error) bool
	}{
		{
			"unknown job", func(w http.ResponseWriter, _ *http.Request) { problem(w, qgjob.CodeNotFound, "no such job") },
			func(err error) bool { return qgjob.ErrorCode(err) == qgjob.CodeNotFound },
		},
		{
			"nothing will follow", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) },
			func(err error) bool { return err == nil },
		},
		{
			"the callback fails", func(w http.ResponseWriter, _ *http.Request) { sendEvents(w, qgjob.Event{Seq: 1}) },
			func(err error) bool { return errors.Is(err, stop) },
		},
		{
			"the server is gone for too long", func(w http.ResponseWriter, _ *http.Request) { problem(w, qgjob.CodeUnavailable, "no") },
			func(err error) bool { return qgjob.ErrorCode(err) == qgjob.CodeUnavailable },
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl := client(t, c.answer)
			cl.Patience = 200 * time.Millisecond
			if err := cl.WatchJob(t.Context(), "j", 0, func(qgjob.Event) error { return stop }); !c.want(err) {
				t.Errorf("WatchJob = %v", err)
			}
		})
	}
}

func TestFollowLogPinsTheAttempt(t *testing.T) {
	var asked []string
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		asked = append(asked, q.Get("attempt")+"@"+q.Get("offset"))
		w.Header().Set(api.LogAttemptHeader, "2")
		switch q.Get("offset") {
		case "0":
			w.Header().Set(api.LogNextHeader, "3")
			fmt.Fprint(w, "abc")
		case "3":
			w.Header().Set(api.LogNextHeader, "5")
			w.Header().Set(api.LogEndedHeader, "true")
			fmt.Fprint(w, "de")
		}
	})
	var out strings.Builder
	n, err := c.FollowLog(t.Context(), "j", 0, &out)
	if err != nil || n != 2 || out.String() != "abcde" {
		t.Errorf("FollowLog = %d, %v, %q", n, err, out.String())
	}
	if got := strings.Join(asked, " "); got != "0@0 2@3" {
		t.Errorf("asked for %s", got)
	}
}

func TestTheTokenIsSent(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Authorization"); got != "Bearer secret" {
			t.Errorf("Authorization: %q", got)
		}
		fmt.Fprint(w, "{}")
	})
	c.Token = "secret"
	if _, err := c.Queue(t.Context()); err != nil {
		t.Error(err)
	}
}

// The minutes that a file needs are not the server's absence: an upload that a restart cut is made again.
func TestAnUploadThatWasCutIsMadeAgain(t *testing.T) {
	tries := 0
	c := client(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if tries++; tries == 1 {
			time.Sleep(400 * time.Millisecond) // longer than the server may be gone
			problem(w, qgjob.CodeUnavailable, "the server is shutting down")
			return
		}
		fmt.Fprint(w, `{"sha256":"s","size":3}`)
	})
	c.Patience = 200 * time.Millisecond
	file := api.File{SHA256: "s", Size: 3, Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("apk")), nil }}
	if stored, err := c.UploadBuild(t.Context(), "acme", "v1", file); err != nil || tries != 2 {
		t.Errorf("after %d tries: %+v, %v", tries, stored, err)
	}
}

// The answer to HEAD has no body that could say what is wrong with a token.
func TestATokenThatIsRefusedIsSaid(t *testing.T) {
	c := client(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	_, err := c.HasBundle(t.Context(), "acme", "s")
	if qgjob.ErrorCode(err) != qgjob.CodeUnauthorized || !strings.Contains(err.Error(), "QGJOB_TOKEN") {
		t.Errorf("HasBundle = %v", err)
	}
}
