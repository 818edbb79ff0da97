package server

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/swaggest/swgui"
	"github.com/swaggest/swgui/v5emb"

	"qgjob/internal/api"
)

// bodyTimeout is how long a JSON body may take to arrive.
const bodyTimeout = 30 * time.Second

// Tags group the operations in the documentation.
const (
	tagRuns    = "runs and jobs"
	tagQueue   = "queue and devices"
	tagFiles   = "bundles and builds"
	tagWorkers = "worker protocol"
	tagHooks   = "webhooks"
	tagServer  = "server"
)

// routes registers everything that the server serves. An operation's id is the name of the method of
// api.Client that calls it, with a small first letter.
func (s *Server) routes() {
	config := huma.DefaultConfig("qgjob", s.version)
	config.Info.Description = "Queues, groups and runs AppWright end-to-end mobile tests on the devices a team has. " +
		"Every error answer is application/problem+json with a stable `code`. Unknown fields and parameters are refused."
	config.DocsPath = ""
	config.SchemasPath = ""
	config.CreateHooks = nil
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: s.decode}
	config.Formats = map[string]huma.Format{"application/json": format, "json": format}
	config.RejectUnknownQueryParameters = true
	if len(s.tokens) > 0 {
		config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
		config.Security = []map[string][]string{{"token": {}}}
	}
	a := humago.New(s.mux, config)

	s.runRoutes(a)
	s.queueRoutes(a)
	s.fileRoutes(a)
	s.artifactRoutes(a)
	s.holdRoutes(a)
	s.workerRoutes(a)
	s.webhookRoutes(a)
	s.serverRoutes(a)

	metrics := s.metrics.handler()
	s.mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		if allowed(w, r, operators) {
			metrics.ServeHTTP(w, r)
		}
	})
	docs := v5emb.NewHandlerWithConfig(swgui.Config{Title: "qgjob", SwaggerJSON: "/openapi.json", BasePath: "/docs/"})
	s.mux.Handle("GET /docs/", docs)
	s.mux.Handle("GET /docs", http.RedirectHandler("/docs/", http.StatusMovedPermanently))
}

func (s *Server) runRoutes(a huma.API) {
	submit := operation("submit", http.MethodPost, "/v1/runs", tagRuns, "Submit jobs as a run",
		"201 with the run when it was made; 200 with the run that the idempotency key names when there is one.")
	submit.DefaultStatus = http.StatusCreated
	submit.Responses = map[string]*huma.Response{"200": {Description: "The run that the idempotency key names"}}
	handle(s, a, clients, submit, s.submit)
	responses := a.OpenAPI().Paths["/v1/runs"].Post.Responses
	responses["200"].Content = responses["201"].Content

	handle(s, a, clients, operation("run", http.MethodGet, "/v1/runs/{id}", tagRuns, "Get a run with its jobs", ""), s.run)
	handle(s, a, clients, operation("cancelRun", http.MethodPost, "/v1/runs/{id}/cancel", tagRuns, "Cancel a run",
		"Each of its jobs that has no verdict is canceled, as POST /v1/jobs/{id}/cancel does."), s.cancelRun)
	retry := operation("retryRun", http.MethodPost, "/v1/runs/{id}/retry", tagRuns, "Run a run's jobs again, as a new run",
		"201 with the new run; 200 with the one that the idempotency key names when there is one.")
	retry.DefaultStatus = http.StatusCreated
	retry.Responses = map[string]*huma.Response{"200": {Description: "The run that the idempotency key names"}}
	handle(s, a, clients, retry, s.retryRun)
	again := a.OpenAPI().Paths["/v1/runs/{id}/retry"].Post.Responses
	again["200"].Content = again["201"].Content
	handle(s, a, clients, stream("watchRun", "/v1/runs/{id}/events", tagRuns, "Watch a run",
		"Server-sent events: every job of the run and the run's state, then the jobs that change, a few times a second at most. Ends after the verdict."), s.watchRun)
	handle(s, a, clients, operation("runReport", http.MethodGet, "/v1/runs/{id}/report", tagRuns, "Get a run with all attempts of its jobs", ""), s.runReport)
	handle(s, a, clients, operation("flaky", http.MethodGet, "/v1/flaky", tagRuns, "What the history of an organization's tests says",
		"Made of its newest 2000 jobs. Executions on one code state, which is a test project and a build, tell chance from change."), s.flaky)
	handle(s, a, clients, operation("quarantine", http.MethodPut, "/v1/quarantine", tagRuns, "Quarantine a test",
		"It runs and is reported, and its failure fails no job. It returns by itself after twenty executions in a row that passed."), s.quarantine)
	handle(s, a, clients, operation("release", http.MethodPost, "/v1/quarantine/release", tagRuns, "Let a quarantined test count again", ""), s.release)
	handle(s, a, clients, operation("jobs", http.MethodGet, "/v1/jobs", tagRuns, "List jobs, newest first",
		"A page may hold fewer jobs than asked for, or none, while next is set: those asked for are rare among the newest."), s.jobs)
	handle(s, a, clients, operation("job", http.MethodGet, "/v1/jobs/{id}", tagRuns, "Get a job with its attempts and events", ""), s.job)
	handle(s, a, clients, operation("cancel", http.MethodPost, "/v1/jobs/{id}/cancel", tagRuns, "Cancel a job",
		"A queued job is canceled at once. A running one is canceling until its device has stopped. A job with a verdict stays as it is."), s.cancel)
	handle(s, a, clients, operation("explain", http.MethodGet, "/v1/jobs/{id}/explanation", tagRuns, "Why a job waits, or why it ran where it did",
		"Made of the plan of this moment. Each constraint says whether it holds the job back now."), s.explain)
	handle(s, a, clients, stream("watchJob", "/v1/jobs/{id}/events", tagRuns, "Watch a job",
		"Server-sent events: every event of the job from the first one on, each once, with its number as id; data is the event as JSON. "+
			"Goes on after Last-Event-ID. Ends after the verdict; 204 when the verdict was seen before."), s.watchJob)
	log := operation("log", http.MethodGet, "/v1/jobs/{id}/log", tagRuns, "Read the log of an attempt", "")
	log.Responses = map[string]*huma.Response{"200": binary("text/plain; charset=utf-8", "The log's bytes from the offset on, at most 1 MiB")}
	handle(s, a, clients, log, s.readLog)
}

func (s *Server) queueRoutes(a huma.API) {
	handle(s, a, clients, operation("queue", http.MethodGet, "/v1/queue", tagQueue, "What waits, in the order in which it is served", ""), s.queue)
	handle(s, a, clients, stream("watchQueue", "/v1/queue/events", tagQueue, "Watch the queue",
		"Server-sent events: the queue as it is, then again at each change, at most a few a second; data is the same as GET /v1/queue."), s.watchQueue)
	handle(s, a, operators, operation("setOrganization", http.MethodPut, "/v1/organizations/{id}", tagQueue, "Set an organization's share, quota and budget", ""), s.setOrganization)
	handle(s, a, clients, operation("organization", http.MethodGet, "/v1/organizations/{id}", tagQueue, "Read an organization's share, quota and budget", ""), s.organization)
	handle(s, a, clients, operation("exportWorkload", http.MethodGet, "/v1/export/workload", tagQueue, "What was submitted and how long it ran, in the form that qgjob simulate reads",
		"Jobs that an attempt brought to their verdict, in the order of submission, in pages. A page may hold few jobs, or none, while next is set."), s.exportWorkload)
	handle(s, a, clients, operation("exportFleet", http.MethodGet, "/v1/export/fleet", tagQueue, "Devices and organizations, in the form that qgjob simulate reads",
		"The devices of live workers with the install and reset times that were learned of their kinds."), s.exportFleet)
	handle(s, a, clients, operation("devices", http.MethodGet, "/v1/devices", tagQueue, "Every known device", ""), s.devices)
}

func (s *Server) fileRoutes(a huma.API) {
	const bundles, builds = "/v1/bundles/{sha256}", "/v1/builds/{sha256}"
	handle(s, a, clients, operation("hasBundle", http.MethodHead, bundles, tagFiles, "Ask whether a bundle is there", "Asking counts as use: what nobody uses is removed after a while."), s.hasBundle)
	handle(s, a, clients|workers, download("bundle", bundles, "Download a bundle"), s.bundleFile)
	handle(s, a, clients, upload("uploadBundle", bundles, "Upload a bundle", "The test project, as packed by qgjob submit. Stored when its SHA-256 is the path's."), s.uploadBundle)
	handle(s, a, clients, operation("builds", http.MethodGet, "/v1/builds", tagFiles, "List an app version's builds, newest first", ""), s.builds)
	handle(s, a, clients, operation("hasBuild", http.MethodHead, builds, tagFiles, "Ask whether an app version has a build", "Asking counts as use: what nobody uses is removed after a while."), s.hasBuild)
	handle(s, a, clients|workers, download("build", builds, "Download a build"), s.buildFile)
	handle(s, a, clients, upload("uploadBuild", builds, "Upload a build", "An APK, an IPA or a simulator's .app, zipped. Stored when its SHA-256 is the path's and it can be read."), s.uploadBuild)
}

func (s *Server) workerRoutes(a huma.API) {
	handle(s, a, workers, operation("register", http.MethodPut, "/v1/workers/{id}", tagWorkers, "Announce a worker", ""), s.register)
	handle(s, a, workers, operation("heartbeat", http.MethodPost, "/v1/workers/{id}/heartbeat", tagWorkers, "Keep a worker and its leases alive",
		"404: the server does not know the worker any more; it registers again."), s.heartbeat)
	handle(s, a, workers, operation("poll", http.MethodPost, "/v1/workers/{id}/poll", tagWorkers, "Hand in results and ask for work",
		"Answered at the first assignment or cancel, or when the wait ends; soon when it carries results. A newer poll of the worker supersedes it."), s.poll)
	handle(s, a, workers, operation("leave", http.MethodPost, "/v1/workers/{id}/leave", tagWorkers, "End a worker", ""), s.leave)
	handle(s, a, workers, operation("attemptEnvironment", http.MethodGet, "/v1/attempts/{id}/environment", tagWorkers, "Get the variables of an attempt's tests",
		"Secrets included: only the worker that holds the lease gets them."), s.attemptEnvironment)
	appendLog := upload("appendLog", "/v1/attempts/{id}/log", "Add to an attempt's log", "At most 1 MiB at once. Bytes that are there already are not added twice.")
	appendLog.Method = http.MethodPost
	appendLog.Tags = []string{tagWorkers}
	handle(s, a, workers, appendLog, s.appendLog)
}

func (s *Server) webhookRoutes(a huma.API) {
	add := operation("addWebhook", http.MethodPost, "/v1/webhooks", tagHooks, "Register a webhook",
		"It hears of the runs that are submitted from now on, when they have their verdict. Its secret is in this answer only.")
	add.DefaultStatus = http.StatusCreated
	handle(s, a, clients, add, s.addWebhook)
	handle(s, a, clients, operation("webhooks", http.MethodGet, "/v1/webhooks", tagHooks, "List webhooks", ""), s.webhooks)
	handle(s, a, clients, operation("removeWebhook", http.MethodDelete, "/v1/webhooks/{id}", tagHooks, "Forget a webhook and its deliveries", ""), s.removeWebhook)
	handle(s, a, clients, operation("deliveries", http.MethodGet, "/v1/webhooks/{id}/deliveries", tagHooks, "What a webhook was told, newest first", ""), s.deliveries)
}

func (s *Server) serverRoutes(a huma.API) {
	health := operation("health", http.MethodGet, "/health", tagServer, "What the server, the store, the queue and the workers are like", "503 with the same body when the server cannot serve.")
	health.Security = []map[string][]string{}
	handle(s, a, clients|workers, health, s.health)
}

// handle registers an operation for those who may call it. Its handler returns errors of package qgjob, and keeps
// clients within their organization.
func handle[I, O any](s *Server, a huma.API, who access, op huma.Operation, handler func(context.Context, *I) (*O, error)) {
	op.Middlewares = huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
		if r, w := humago.Unwrap(hc); allowed(w, r, who) {
			next(hc)
		}
	}}
	if s.formBody(reflect.TypeFor[I](), a.OpenAPI().Components.Schemas) {
		op.SkipValidateBody = true
	}
	huma.Register(a, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := handler(ctx, in)
		if err != nil {
			return nil, s.refuse(op.OperationID, err)
		}
		return out, nil
	})
}

func operation(id, method, path, tag, summary, description string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Description: description, Tags: []string{tag},
		MaxBodyBytes:    api.MaxJSONBody + 1, // huma refuses what reaches the limit
		BodyReadTimeout: bodyTimeout,
	}
}

func stream(id, path, tag, summary, description string) huma.Operation {
	op := operation(id, http.MethodGet, path, tag, summary, description)
	op.Responses = map[string]*huma.Response{"200": {
		Description: "A stream that lasts",
		Content:     map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: huma.TypeString}}},
	}}
	return op
}

func download(id, path, summary string) huma.Operation {
	op := operation(id, http.MethodGet, path, tagFiles, summary, "")
	op.Responses = map[string]*huma.Response{"200": binary("application/octet-stream", "The file")}
	return op
}

func upload(id, path, summary, description string) huma.Operation {
	op := operation(id, http.MethodPut, path, tagFiles, summary, description)
	op.RequestBody = &huma.RequestBody{
		Required: true,
		Content:  map[string]*huma.MediaType{"application/octet-stream": {Schema: binarySchema()}},
	}
	return op
}

func binary(contentType, description string) *huma.Response {
	return &huma.Response{Description: description, Content: map[string]*huma.MediaType{contentType: {Schema: binarySchema()}}}
}

func binarySchema() *huma.Schema { return &huma.Schema{Type: huma.TypeString, Format: "binary"} }
