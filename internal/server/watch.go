package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

const (
	// streamWrite is how long a client may leave a stream's bytes unread before it is cut off.
	streamWrite = 10 * time.Second
	// queueEvery is the shortest time between two snapshots of the queue to one watcher.
	queueEvery = 300 * time.Millisecond
	// queueLook bounds how long a change that publishes nothing, such as the end of a job, goes unseen.
	queueLook = 2 * time.Second
)

// sse writes server-sent events to one client.
type sse struct {
	w    http.ResponseWriter
	ctrl *http.ResponseController
}

func newSSE(hc huma.Context) *sse {
	_, w := humago.Unwrap(hc)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // proxies are not to collect events
	w.WriteHeader(http.StatusOK)
	return &sse{w: w, ctrl: http.NewResponseController(w)}
}

// event sends data as JSON; id 0 is none.
func (s *sse) event(id int, data []byte) error {
	var b bytes.Buffer
	if id > 0 {
		b.WriteString("id: " + strconv.Itoa(id) + "\n")
	}
	b.WriteString("data: ")
	b.Write(data)
	b.WriteString("\n\n")
	return s.write(b.Bytes())
}

// heartbeat sends a comment, by which both sides see that the other one is there.
func (s *sse) heartbeat() error { return s.write([]byte(":\n\n")) }

func (s *sse) write(p []byte) error {
	if err := s.ctrl.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil {
		return err
	}
	if _, err := s.w.Write(p); err != nil {
		return err
	}
	return s.ctrl.Flush()
}

type watchJobInput struct {
	ID          string `path:"id" doc:"UUID of the job"`
	After       int    `query:"after" minimum:"0" doc:"number of the last event seen"`
	LastEventID int    `header:"Last-Event-ID" minimum:"0" doc:"as after; the higher one counts"`
}

type streamOutput struct {
	Body func(huma.Context)
}

func (s *Server) watchJob(ctx context.Context, in *watchJobInput) (*streamOutput, error) {
	id, err := parseUUID("job", in.ID)
	if err != nil {
		return nil, err
	}
	org, after := principalOf(ctx).OrgID, max(in.After, in.LastEventID)
	news := s.store.Subscribe(store.TopicJob(id))
	events, err := s.store.Events(ctx, org, id, 0)
	if err != nil {
		news.Close()
		return nil, err
	}
	for len(events) > 0 && events[0].Seq <= after {
		if events[0].State.IsVerdict() {
			news.Close()
			return &streamOutput{Body: noContent}, nil
		}
		events = events[1:]
	}
	return &streamOutput{Body: func(hc huma.Context) {
		defer news.Close()
		// An error is the client's leaving, or the store's: either way the client comes back.
		_ = s.sendEvents(ctx, newSSE(hc), news, org, id, after, events)
	}}, nil
}

// noContent tells a browser's EventSource that it need not connect again.
func noContent(hc huma.Context) { hc.SetStatus(http.StatusNoContent) }

// sendEvents sends events until the verdict was sent, the client left, or the server shuts down.
func (s *Server) sendEvents(ctx context.Context, out *sse, news *store.Subscription, org, id string, after int, events []qgjob.Event) error {
	heartbeat := time.NewTicker(api.StreamHeartbeat)
	defer heartbeat.Stop()
	if err := out.heartbeat(); err != nil { // so that the client sees at once that it is connected
		return err
	}
	for {
		for _, e := range events {
			data, err := json.Marshal(e)
			if err != nil {
				return err
			}
			if err := out.event(e.Seq, data); err != nil {
				return err
			}
			after = e.Seq
			if e.State.IsVerdict() {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.draining:
			return nil
		case <-heartbeat.C:
			if err := out.heartbeat(); err != nil {
				return err
			}
			events = nil
			continue
		case <-news.C:
		}
		var err error
		if events, err = s.store.Events(ctx, org, id, after); err != nil {
			return err
		}
	}
}

type queueOutput struct {
	Body api.Queue
}

func (s *Server) queue(ctx context.Context, _ *struct{}) (*queueOutput, error) {
	q, err := s.readQueue(ctx)
	if err != nil {
		return nil, err
	}
	return &queueOutput{Body: q}, nil
}

func (s *Server) readQueue(ctx context.Context) (api.Queue, error) {
	lanes, running, err := s.store.Queue(ctx, principalOf(ctx).OrgID)
	if err != nil {
		return api.Queue{}, err
	}
	q := api.Queue{Entries: make([]api.QueueEntry, len(lanes)), Running: running}
	for i, l := range lanes {
		q.Entries[i] = api.QueueEntry{
			OrgID: l.OrgID, AppVersionID: l.AppVersionID, Target: l.Target, Requires: l.Requires, Priority: l.Priority, Level: l.Level,
			Queued: l.Queued, OldestMS: l.Waited.Milliseconds(),
		}
	}
	return q, nil
}

func (s *Server) watchQueue(ctx context.Context, _ *struct{}) (*streamOutput, error) {
	news := s.store.Subscribe(store.TopicQueue)
	q, err := s.readQueue(ctx)
	if err != nil {
		news.Close()
		return nil, err
	}
	return &streamOutput{Body: func(hc huma.Context) {
		defer news.Close()
		_ = s.sendQueue(ctx, newSSE(hc), news, q) // as in watchJob
	}}, nil
}

// sendQueue sends snapshots of the queue until the client left or the server shuts down.
func (s *Server) sendQueue(ctx context.Context, out *sse, news *store.Subscription, q api.Queue) error {
	heartbeat := time.NewTicker(api.StreamHeartbeat)
	defer heartbeat.Stop()
	look := time.NewTicker(queueLook)
	defer look.Stop()
	sent := api.Queue{Running: -1} // like no queue that there is
	for {
		if !sameQueue(sent, q) {
			data, err := json.Marshal(q)
			if err != nil {
				return err
			}
			if err := out.event(0, data); err != nil {
				return err
			}
			sent = q
		}
		s.rest(ctx, queueEvery)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.draining:
			return nil
		case <-heartbeat.C:
			if err := out.heartbeat(); err != nil {
				return err
			}
		case <-news.C:
		case <-look.C:
		}
		var err error
		if q, err = s.readQueue(ctx); err != nil {
			return err
		}
	}
}

// rest waits, unless the client leaves or the server shuts down: what changes meanwhile is sent together.
func (s *Server) rest(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.draining:
	case <-timer.C:
	}
}

// sameQueue says whether two snapshots differ in nothing but the time that passed.
func sameQueue(a, b api.Queue) bool {
	if a.Running != b.Running || len(a.Entries) != len(b.Entries) {
		return false
	}
	for i := range a.Entries {
		x, y := a.Entries[i], b.Entries[i]
		x.OldestMS, y.OldestMS = 0, 0
		if x != y {
			return false
		}
	}
	return true
}

type devicesOutput struct {
	Body api.DeviceList
}

func (s *Server) devices(ctx context.Context, _ *struct{}) (*devicesOutput, error) {
	org := principalOf(ctx).OrgID
	devices, err := s.store.Devices(ctx, org)
	if err != nil {
		return nil, err
	}
	holds, err := s.store.Holds(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	for i, d := range devices {
		h, held := holds[d.ID]
		if !held {
			continue
		}
		if org != "" && h.Kind == qgjob.HoldQuarantine {
			h.Reason = "" // it quotes how an attempt ended, whoever's that was
		}
		devices[i].Hold = &h
		if d.State == qgjob.DeviceIdle {
			devices[i].State, devices[i].Message = h.State(), h.String()
		}
	}
	return &devicesOutput{Body: api.DeviceList{Devices: list(devices)}}, nil
}
