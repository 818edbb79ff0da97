package server

import (
	"context"
	"net/http"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

type healthOutput struct {
	Status int
	Body   api.Health
}

// health asks the store for a round trip through its writer: a database that can only be read cannot serve.
func (s *Server) health(ctx context.Context, _ *struct{}) (*healthOutput, error) {
	ctx, cancel := context.WithTimeout(ctx, statsTimeout)
	defer cancel()
	h := api.Health{Status: "ok", Version: s.version, Store: api.HealthStore{Kind: s.store.Kind(), OK: true}}
	err := s.store.Ping(ctx)
	var stats store.Stats
	if err == nil {
		stats, err = s.store.Stats(ctx)
	}
	if err != nil {
		s.log.Error("the store cannot serve", "error", err)
		h.Status, h.Store.OK, h.Store.Message = "failing", false, problemOf(err).Detail
		return &healthOutput{Status: http.StatusServiceUnavailable, Body: h}, nil
	}
	h.Queue = api.HealthQueue{
		Queued:         int(stats.Jobs[qgjob.Queued]),
		Running:        int(stats.Jobs[qgjob.Running] + stats.Jobs[qgjob.Canceling]),
		OldestQueuedMS: stats.OldestQueued.Milliseconds(),
	}
	h.Workers = api.HealthWorkers{
		Alive:          stats.WorkersAlive,
		DevicesWorking: stats.Devices[qgjob.DeviceIdle] + stats.Devices[qgjob.DeviceBusy],
	}
	if stats.WorkerSeen {
		h.Workers.LastSeenMS = max(1, stats.LastSeen.Milliseconds()) // 0 is left out, which means never
	}
	for _, n := range stats.Devices {
		h.Workers.Devices += n
	}
	return &healthOutput{Status: http.StatusOK, Body: h}, nil
}
