package server

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"qgjob"
	"qgjob/internal/store"
)

// statsTimeout bounds how long a scrape or a health check waits for the database.
const statsTimeout = 3 * time.Second

// metrics is what /metrics tells. Nothing is labelled by job, run or organization.
type metrics struct {
	registry        *prometheus.Registry
	requests        *prometheus.CounterVec
	durations       *prometheus.HistogramVec
	reaped          prometheus.Counter
	dispatches      prometheus.Histogram
	dispatchedTotal prometheus.Counter
}

func newMetrics(st *store.Store) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "qgjob_http_requests_total", Help: "Requests served, by route and status.",
		}, []string{"route", "status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "qgjob_http_request_duration_seconds", Help: "Time from a request's header to the end of its answer; polls and streams wait on purpose.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		}, []string{"route"}),
		reaped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "qgjob_leases_reaped_total", Help: "Attempts ended by this server because their lease ran out.",
		}),
		dispatches: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "qgjob_dispatch_duration_seconds", Help: "Time that planning and claiming took.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 12),
		}),
		dispatchedTotal: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "qgjob_dispatched_total", Help: "Attempts that this server gave to devices.",
		}),
	}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		m.requests, m.durations, m.reaped, m.dispatches, m.dispatchedTotal, newQueueCollector(st),
	)
	return m
}

func (m *metrics) handler() http.Handler {
	// The server's own numbers are worth most when the database does not answer.
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

func (m *metrics) request(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.durations.WithLabelValues(route).Observe(took.Seconds())
}

func (m *metrics) dispatched(n int, took time.Duration) {
	m.dispatches.Observe(took.Seconds())
	m.dispatchedTotal.Add(float64(n))
}

// queueCollector reads the store's counters at each scrape: they are the installation's, whichever server
// is asked.
type queueCollector struct {
	store                                                                                   *store.Store
	jobs, oldest, workers, devices, attempts, installs, saved, cost, estimates, predictions *prometheus.Desc
}

func newQueueCollector(st *store.Store) *queueCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &queueCollector{
		store:    st,
		jobs:     desc("qgjob_jobs", "Jobs by state.", "state"),
		oldest:   desc("qgjob_queue_oldest_seconds", "How long the oldest queued job has waited."),
		workers:  desc("qgjob_workers", "Workers alive."),
		devices:  desc("qgjob_devices", "Devices of live workers, by state.", "state"),
		attempts: desc("qgjob_attempts_total", "Attempts that ended, by outcome and cause.", "outcome", "cause"),
		installs: desc("qgjob_installs_total", "Installs done for attempts."),
		saved:    desc("qgjob_installs_saved_total", "Attempts that found their app installed."),
		cost:     desc("qgjob_cloud_cost_total", "What attempts cost on BrowserStack, in the unit of the price of a minute that workers were told."),
		predictions: desc("qgjob_predictions_total", "Expected starts of waiting jobs, sampled, and how they turned out: by_p50 and by_p90 count the jobs that had started "+
			"by then, all counts every one.", "started"),
		estimates: desc("qgjob_estimate_error", "How far expected times were off lately, as a part of the larger of the expected and the real time, "+
			"from 0 to 1: the mean over all specs for runs, over the kinds of devices for installs and resets. Absent for what was never measured.", "kind"),
	}
}

// Describe is what the registry asks at the registration.
func (c *queueCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.jobs, c.oldest, c.workers, c.devices, c.attempts, c.installs, c.saved, c.cost, c.estimates, c.predictions} {
		out <- d
	}
}

// Collect is what the registry asks at a scrape. The interface hands it no context.
func (c *queueCollector) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	stats, err := c.store.Stats(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.jobs, err)
		return
	}
	errors, err := c.store.EstimateErrors(ctx)
	if err != nil {
		out <- prometheus.NewInvalidMetric(c.estimates, err)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for _, state := range qgjob.JobStates {
		gauge(c.jobs, float64(stats.Jobs[state]), string(state))
	}
	gauge(c.oldest, stats.OldestQueued.Seconds())
	gauge(c.workers, float64(stats.WorkersAlive))
	for _, state := range deviceStates {
		gauge(c.devices, float64(stats.Devices[state]), string(state))
	}
	for kind, n := range stats.Attempts {
		counter(c.attempts, float64(n), string(kind.Outcome), string(kind.Cause))
	}
	counter(c.installs, float64(stats.Installs))
	counter(c.saved, float64(stats.InstallsSaved))
	counter(c.cost, stats.CloudCost)
	counter(c.predictions, float64(stats.Predictions.Judged), "all")
	counter(c.predictions, float64(stats.Predictions.ByP50), "by_p50")
	counter(c.predictions, float64(stats.Predictions.ByP90), "by_p90")
	for kind, off := range errors {
		gauge(c.estimates, off, kind)
	}
}

var deviceStates = []qgjob.DeviceState{
	qgjob.DeviceIdle, qgjob.DeviceBusy, qgjob.DeviceOffline, qgjob.DeviceUnauthorized, qgjob.DeviceBooting,
}
