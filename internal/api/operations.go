package api

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"qgjob"
)

// Submit makes a run, or finds the one that the idempotency key names. Without a key it makes one, so that
// its own repetitions cannot double the work.
func (c *Client) Submit(ctx context.Context, s SubmitRequest) (qgjob.Run, error) {
	if s.IdempotencyKey == "" {
		s.IdempotencyKey = rand.Text()
	}
	var run qgjob.Run
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/runs", in: s}, &run)
	return run, err
}

// Run returns a run with its jobs.
func (c *Client) Run(ctx context.Context, id string) (qgjob.Run, error) {
	var run qgjob.Run
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/runs/" + escape(id)}, &run)
	return run, err
}

// CancelRun asks for every job of a run to be canceled that has no verdict, and returns the run as it is now.
func (c *Client) CancelRun(ctx context.Context, id string) (qgjob.Run, error) {
	var run qgjob.Run
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/runs/" + escape(id) + "/cancel"}, &run)
	return run, err
}

// RetryRun makes a new run of a run's jobs. Without a key it makes one, as Submit does.
func (c *Client) RetryRun(ctx context.Context, id string, r RetryRequest) (qgjob.Run, error) {
	if r.IdempotencyKey == "" {
		r.IdempotencyKey = rand.Text()
	}
	var run qgjob.Run
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/runs/" + escape(id) + "/retry", in: r}, &run)
	return run, err
}

// RunReport returns a run with the attempts of all its jobs.
func (c *Client) RunReport(ctx context.Context, id string) (RunReport, error) {
	var report RunReport
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/runs/" + escape(id) + "/report"}, &report)
	return report, err
}

// Flaky returns what the newest jobs of an organization say of its tests.
func (c *Client) Flaky(ctx context.Context, org string) (TestHistories, error) {
	var list TestHistories
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/flaky", query: url.Values{"org_id": {org}}}, &list)
	return list, err
}

// Quarantine lets a test run without counting.
func (c *Client) Quarantine(ctx context.Context, r QuarantineRequest) error {
	return c.call(ctx, request{method: http.MethodPut, path: "/v1/quarantine", in: r}, nil)
}

// Release lets a test count again. CodeNotFound: it is not quarantined.
func (c *Client) Release(ctx context.Context, r ReleaseRequest) error {
	return c.call(ctx, request{method: http.MethodPost, path: "/v1/quarantine/release", in: r}, nil)
}

// AddWebhook registers a webhook. It is not repeated: each request makes one, with a secret of its own.
func (c *Client) AddWebhook(ctx context.Context, r WebhookRequest) (WebhookAdded, error) {
	var added WebhookAdded
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/webhooks", in: r, once: true}, &added)
	return added, err
}

// Webhooks returns an organization's webhooks, without their secrets.
func (c *Client) Webhooks(ctx context.Context, org string) (WebhookList, error) {
	var list WebhookList
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/webhooks", query: url.Values{"org_id": {org}}}, &list)
	return list, err
}

// RemoveWebhook forgets a webhook and its deliveries.
func (c *Client) RemoveWebhook(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/v1/webhooks/" + escape(id)}, nil)
}

// Deliveries returns what a webhook was told, newest first.
func (c *Client) Deliveries(ctx context.Context, webhookID string) (DeliveryList, error) {
	var list DeliveryList
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/webhooks/" + escape(webhookID) + "/deliveries"}, &list)
	return list, err
}

// JobQuery selects jobs. Empty fields select all.
type JobQuery struct {
	OrgID        string
	AppVersionID string
	RunID        string
	State        qgjob.JobState
	Target       qgjob.Target
	Cursor       string // JobList.Next of the page before
	Limit        int    // zero: the server's default
}

// Jobs returns a page of jobs, newest first.
func (c *Client) Jobs(ctx context.Context, q JobQuery) (JobList, error) {
	query := url.Values{}
	for name, value := range map[string]string{
		"org_id": q.OrgID, "app_version_id": q.AppVersionID, "run_id": q.RunID,
		"state": string(q.State), "target": string(q.Target), "cursor": q.Cursor,
	} {
		if value != "" {
			query.Set(name, value)
		}
	}
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	var list JobList
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/jobs", query: query}, &list)
	return list, err
}

// Job returns a job with its attempts and events.
func (c *Client) Job(ctx context.Context, id string) (JobDetail, error) {
	var job JobDetail
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/jobs/" + escape(id)}, &job)
	return job, err
}

// Explain says why a job waits, or why it ran where it did.
func (c *Client) Explain(ctx context.Context, id string) (Explanation, error) {
	var e Explanation
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/jobs/" + escape(id) + "/explanation"}, &e)
	return e, err
}

// Organization returns an organization's share, quota and budget.
func (c *Client) Organization(ctx context.Context, id string) (Organization, error) {
	var o Organization
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/organizations/" + escape(id)}, &o)
	return o, err
}

// SetOrganization sets an organization's share, quota and budget.
func (c *Client) SetOrganization(ctx context.Context, id string, o Organization) error {
	return c.call(ctx, request{method: http.MethodPut, path: "/v1/organizations/" + escape(id), in: o}, nil)
}

// Cancel asks for a job to be canceled and returns it as it is now: canceled, canceling, or with the
// verdict that it had already.
func (c *Client) Cancel(ctx context.Context, id string) (qgjob.Job, error) {
	var job qgjob.Job
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/jobs/" + escape(id) + "/cancel"}, &job)
	return job, err
}

// Log returns what the log of one attempt holds from an offset on; attempt 0 is the newest one. When there
// is nothing new it waits for at most wait.
func (c *Client) Log(ctx context.Context, jobID string, attempt int, offset int64, wait time.Duration) (LogChunk, error) {
	wait = min(wait, MaxWait)
	r := request{
		method: http.MethodGet, path: "/v1/jobs/" + escape(jobID) + "/log", wait: wait,
		query: url.Values{
			"attempt": {strconv.Itoa(attempt)}, "offset": {strconv.FormatInt(offset, 10)}, "wait_ms": {millis(wait)},
		},
	}
	var chunk LogChunk
	err := c.repeat(ctx, r, func(resp *http.Response) (err error) {
		chunk, err = readLog(resp)
		return err
	})
	return chunk, err
}

// Queue returns what waits, most urgent first.
func (c *Client) Queue(ctx context.Context) (Queue, error) {
	var q Queue
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/queue"}, &q)
	return q, err
}

// Devices returns every known device.
func (c *Client) Devices(ctx context.Context) (DeviceList, error) {
	var d DeviceList
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/devices"}, &d)
	return d, err
}

// WorkloadQuery selects jobs of the past.
type WorkloadQuery struct {
	OrgID  string // empty: all that the client may see
	Since  time.Time
	Cursor string // Workload.Next of the page before
	Limit  int    // zero: the server's default
}

// ExportWorkload returns a page of the jobs that were submitted since a moment and have their verdict, oldest first.
func (c *Client) ExportWorkload(ctx context.Context, q WorkloadQuery) (Workload, error) {
	query := url.Values{"since": {q.Since.UTC().Format(time.RFC3339Nano)}}
	if q.OrgID != "" {
		query.Set("org_id", q.OrgID)
	}
	if q.Cursor != "" {
		query.Set("cursor", q.Cursor)
	}
	if q.Limit != 0 {
		query.Set("limit", strconv.Itoa(q.Limit))
	}
	var w Workload
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/export/workload", query: query}, &w)
	return w, err
}

// ExportFleet returns the devices of live workers and the organizations' shares. An empty org is every
// organization that the client may see.
func (c *Client) ExportFleet(ctx context.Context, org string) (Fleet, error) {
	query := url.Values{}
	if org != "" {
		query.Set("org_id", org)
	}
	var f Fleet
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/export/fleet", query: query}, &f)
	return f, err
}

// Health returns what the server says of itself. A server that answers that it cannot serve is no error.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var h Health
	err := c.repeat(ctx, request{method: http.MethodGet, path: "/health", failing: true}, func(resp *http.Response) error {
		return decode(resp, &h)
	})
	return h, err
}

// Register announces a worker under an id that it chose.
func (c *Client) Register(ctx context.Context, workerID string, r RegisterRequest) (RegisterResponse, error) {
	r.Devices = list(r.Devices)
	var answer RegisterResponse
	err := c.call(ctx, request{method: http.MethodPut, path: worker(workerID), in: r}, &answer)
	return answer, err
}

// Heartbeat keeps a worker, its devices and its leases alive. CodeNotFound: the server does not know the
// worker any more; it registers again.
func (c *Client) Heartbeat(ctx context.Context, workerID string, r HeartbeatRequest) (HeartbeatResponse, error) {
	r.Devices, r.Leases = list(r.Devices), list(r.Leases)
	var answer HeartbeatResponse
	err := c.call(ctx, request{method: http.MethodPost, path: worker(workerID) + "/heartbeat", in: r}, &answer)
	return answer, err
}

// Poll hands in results and asks for work. It is never repeated: the worker polls again with a higher Seq,
// and with the results whose answer it did not get.
func (c *Client) Poll(ctx context.Context, workerID string, r PollRequest) (PollResponse, error) {
	r.Devices, r.Leases, r.Results = list(r.Devices), list(r.Leases), list(r.Results)
	var answer PollResponse
	err := c.call(ctx, request{
		method: http.MethodPost, path: worker(workerID) + "/poll", in: r,
		wait: time.Duration(r.WaitMS) * time.Millisecond, once: true,
	}, &answer)
	return answer, err
}

// Leave ends a worker. Leases that it still has go back without cost.
func (c *Client) Leave(ctx context.Context, workerID string, r LeaveRequest) error {
	return c.call(ctx, request{method: http.MethodPost, path: worker(workerID) + "/leave", in: r}, nil)
}

// AttemptEnvironment returns the variables that an attempt's tests are to have, secrets included.
func (c *Client) AttemptEnvironment(ctx context.Context, lease Lease) (AttemptEnvironment, error) {
	var e AttemptEnvironment
	err := c.call(ctx, request{
		method: http.MethodGet, path: "/v1/attempts/" + escape(lease.AttemptID) + "/environment", header: http.Header{LeaseTokenHeader: {lease.Token}},
	}, &e)
	return e, err
}

// AppendLog adds bytes, at most MaxLogChunk, to an attempt's log. Bytes that are there already, by offset,
// are not added twice.
func (c *Client) AppendLog(ctx context.Context, lease Lease, offset int64, data []byte) (LogAppended, error) {
	var answer LogAppended
	err := c.call(ctx, request{
		method: http.MethodPost, path: "/v1/attempts/" + escape(lease.AttemptID) + "/log",
		query:  url.Values{"offset": {strconv.FormatInt(offset, 10)}},
		header: http.Header{LeaseTokenHeader: {lease.Token}},
		open:   bytesOpener(data), size: int64(len(data)),
	}, &answer)
	return answer, err
}

// list is s as the API wants it: a list without entries is [], never null.
func list[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func worker(id string) string { return "/v1/workers/" + escape(id) }

// WatchJob calls f with each event of a job that comes after the given number, in order, each once, those
// from before the call first, until f was given the verdict. It reconnects when the server goes away, and
// gives up (CodeUnavailable) when it was away for longer than Patience. An error of f ends it, too.
func (c *Client) WatchJob(ctx context.Context, id string, after int, f func(qgjob.Event) error) error {
	open := func() request {
		return request{method: http.MethodGet, path: "/v1/jobs/" + escape(id) + "/events", query: url.Values{"after": {strconv.Itoa(after)}}}
	}
	return c.watch(ctx, open, func(data []byte) (done bool, err error) {
		var e qgjob.Event
		if err := json.Unmarshal(data, &e); err != nil {
			return false, qgjob.Errorf(qgjob.CodeInternal, "an event of job %s cannot be read: %w", id, err)
		}
		if e.Seq <= after {
			return false, nil
		}
		after = e.Seq
		return e.State.IsVerdict(), f(e)
	})
}

// WatchRun calls f with the state of a run and its jobs as they are, then with those that changed, until the
// run has its verdict. It reconnects as WatchJob does, and then all jobs come again.
func (c *Client) WatchRun(ctx context.Context, id string, f func(RunChange) error) error {
	open := func() request { return request{method: http.MethodGet, path: "/v1/runs/" + escape(id) + "/events"} }
	return c.watch(ctx, open, func(data []byte) (bool, error) {
		var change RunChange
		if err := json.Unmarshal(data, &change); err != nil {
			return false, qgjob.Errorf(qgjob.CodeInternal, "a change of run %s cannot be read: %w", id, err)
		}
		return change.State.IsVerdict(), f(change)
	})
}

// WatchQueue calls f with the queue as it is and then at its changes, a few times a second at most, until
// the context or f ends it. It reconnects as WatchJob does.
func (c *Client) WatchQueue(ctx context.Context, f func(Queue) error) error {
	open := func() request { return request{method: http.MethodGet, path: "/v1/queue/events"} }
	return c.watch(ctx, open, func(data []byte) (bool, error) {
		var q Queue
		if err := json.Unmarshal(data, &q); err != nil {
			return false, qgjob.Errorf(qgjob.CodeInternal, "the queue cannot be read: %w", err)
		}
		return false, f(q)
	})
}
