package server

import (
	"context"
	"io"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store"
)

const (
	// heartbeatsPerLease is how many heartbeats a worker sends while a lease lives: it may miss three.
	heartbeatsPerLease = 4.5
	// resultsWait bounds the wait of a poll that carries results: the worker is to hear soon what became of
	// them, and with luck gets its next job with the same answer.
	resultsWait = 100 * time.Millisecond
	// unwaitTimeout bounds the end of a poll whose client has gone.
	unwaitTimeout = 5 * time.Second
)

type registerInput struct {
	ID   string `path:"id" doc:"UUID that the worker chose"`
	Body api.RegisterRequest
}

type registerOutput struct {
	Body api.RegisterResponse
}

func (s *Server) register(ctx context.Context, in *registerInput) (*registerOutput, error) {
	id, err := parseUUID("worker", in.ID)
	if err != nil {
		return nil, err
	}
	refused, err := s.store.Register(ctx, id, in.Body.Host, in.Body.Version, deviceReports(in.Body.Devices))
	if err != nil {
		return nil, err
	}
	holds, err := s.holdsOf(ctx, in.Body.Devices)
	if err != nil {
		return nil, err
	}
	lease := s.store.Lease()
	return &registerOutput{Body: api.RegisterResponse{
		LeaseMS:      lease.Milliseconds(),
		HeartbeatMS:  int64(float64(lease.Milliseconds()) / heartbeatsPerLease),
		DeviceClaims: claims(refused), Holds: holds,
	}}, nil
}

type heartbeatInput struct {
	ID   string `path:"id" doc:"UUID that the worker chose"`
	Body body[api.HeartbeatRequest]
}

type heartbeatOutput struct {
	Body api.HeartbeatResponse
}

func (s *Server) heartbeat(ctx context.Context, in *heartbeatInput) (*heartbeatOutput, error) {
	id, err := parseUUID("worker", in.ID)
	if err != nil {
		return nil, err
	}
	answer, err := s.store.Heartbeat(ctx, id, deviceReports(in.Body.Value.Devices), leases(in.Body.Value.Leases))
	if err != nil {
		return nil, err
	}
	holds, err := s.holdsOf(ctx, in.Body.Value.Devices)
	if err != nil {
		return nil, err
	}
	return &heartbeatOutput{Body: api.HeartbeatResponse{
		Holds: holds, DeviceClaims: claims(answer.Refused), Lost: list(answer.Lost), Cancel: list(answer.Cancel),
	}}, nil
}

type leaveInput struct {
	ID   string `path:"id" doc:"UUID that the worker chose"`
	Body api.LeaveRequest
}

func (s *Server) leave(ctx context.Context, in *leaveInput) (*struct{}, error) {
	id, err := parseUUID("worker", in.ID)
	if err != nil {
		return nil, err
	}
	if err := s.store.Leave(ctx, id); err != nil {
		return nil, err
	}
	s.log.Info("a worker left", "worker", id, "reason", in.Body.Reason)
	return nil, nil
}

type pollInput struct {
	ID   string `path:"id" doc:"UUID that the worker chose"`
	Body body[api.PollRequest]
}

type pollOutput struct {
	Body api.PollResponse
}

// poll hands the results in, lets the free devices wait, and answers when something has come up for the
// worker or the wait is over.
func (s *Server) poll(ctx context.Context, in *pollInput) (*pollOutput, error) {
	id, err := parseUUID("worker", in.ID)
	if err != nil {
		return nil, err
	}
	r := in.Body.Value
	p := store.Poll{
		WorkerID: id, Seq: r.Seq, Free: r.Devices, Wait: time.Duration(r.WaitMS) * time.Millisecond,
		Leases: leases(r.Leases), Results: make([]store.AttemptResult, len(r.Results)),
	}
	for i, end := range r.Results {
		p.Results[i] = store.AttemptResult{Lease: store.Lease(end.Lease), Result: end.Result}
	}
	if len(p.Results) > 0 {
		p.Wait = min(p.Wait, resultsWait)
	}
	news := s.store.Subscribe(store.TopicWorker(id))
	defer news.Close()
	answer, err := s.store.Poll(ctx, p)
	if err != nil {
		return nil, err
	}
	found := answer
	if !comesUp(answer) {
		if found, err = s.waitForWork(ctx, p, news); err != nil {
			return nil, err
		}
	}
	found.Results = answer.Results
	return &pollOutput{Body: pollResponse(found)}, nil
}

// comesUp says whether there is something that a poll is answered with at once.
func comesUp(a store.PollAnswer) bool {
	return a.Superseded || len(a.Assignments) > 0 || len(a.Cancel) > 0
}

// waitForWork waits until something has come up for the poll, and ends the waiting of its devices.
func (s *Server) waitForWork(ctx context.Context, p store.Poll, news *store.Subscription) (store.PollAnswer, error) {
	end := time.NewTimer(p.Wait)
	defer end.Stop()
	var answer store.PollAnswer
	var err error
	for over := false; !over && err == nil && !comesUp(answer); {
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.draining:
			over = true
		case <-end.C:
			over = true
		case <-news.C:
			if answer.Assignments = news.Assignments(p.Seq); len(answer.Assignments) == 0 {
				answer, err = s.store.Assignments(ctx, p.WorkerID, p.Seq, p.Free)
			}
		}
	}
	if answer.Superseded || err == nil && len(answer.Assignments) == len(p.Free) {
		return answer, nil // no device of this poll waits any more
	}
	unwaitCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), unwaitTimeout)
	defer cancel()
	if err := s.store.Unwait(unwaitCtx, p.WorkerID, p.Seq); err != nil {
		// The wait ends by itself in the store; what it assigns meanwhile comes with the worker's next poll.
		s.log.Warn("the wait of a poll could not be ended", "worker", p.WorkerID, "error", err)
	}
	if err != nil {
		return store.PollAnswer{}, err
	}
	// What was assigned before the wait ended must not be lost.
	last, err := s.store.Assignments(ctx, p.WorkerID, p.Seq, p.Free)
	if err != nil {
		return store.PollAnswer{}, err
	}
	last.Cancel = append(answer.Cancel, last.Cancel...)
	return last, nil
}

func pollResponse(a store.PollAnswer) api.PollResponse {
	r := api.PollResponse{
		Assignments: make([]api.Assignment, len(a.Assignments)),
		Results:     make([]api.ResultAnswer, len(a.Results)),
		Cancel:      list(a.Cancel),
		Superseded:  a.Superseded,
	}
	for i, x := range a.Assignments {
		r.Assignments[i] = api.Assignment{Lease: api.Lease(x.Lease), DeviceID: x.DeviceID, Number: x.Number, Reason: x.Reason, Job: x.Job}
	}
	for i, x := range a.Results {
		r.Results[i] = api.ResultAnswer(x)
	}
	return r
}

type appendLogInput struct {
	ID     string `path:"id" doc:"UUID of the attempt"`
	Offset int64  `query:"offset" required:"true" minimum:"0" doc:"where these bytes start in the attempt's log"`
	Token  string `header:"Qgjob-Lease-Token" required:"true" maxLength:"128"`
	upstream
}

type appendLogOutput struct {
	Body api.LogAppended
}

func (s *Server) appendLog(ctx context.Context, in *appendLogInput) (*appendLogOutput, error) {
	id, err := parseUUID("attempt", in.ID)
	if err != nil {
		return nil, err
	}
	if err := in.fits("log chunk", api.MaxLogChunk); err != nil {
		return nil, err
	}
	chunk, err := io.ReadAll(io.LimitReader(in.body, api.MaxLogChunk+1))
	if err != nil {
		if _, ok := err.(*qgjob.Error); !ok {
			err = qgjob.Errorf(qgjob.CodeUnavailable, "the log chunk could not be read: send it again: %w", err)
		}
		return nil, err
	}
	if len(chunk) > api.MaxLogChunk {
		return nil, qgjob.Errorf(qgjob.CodeTooLarge, "the log chunk has more than %d bytes: send it in pieces", api.MaxLogChunk)
	}
	size, err := s.store.AppendLog(ctx, id, in.Token, in.Offset, chunk)
	if err != nil {
		return nil, err
	}
	return &appendLogOutput{Body: api.LogAppended{Size: size}}, nil
}

func deviceReports(devices []api.DeviceReport) []store.DeviceReport {
	out := make([]store.DeviceReport, len(devices))
	for i, d := range devices {
		out[i] = store.DeviceReport{
			ID: d.ID, Serial: d.Serial, Kind: d.Kind, Platform: d.Platform, Model: d.Model, OSVersion: d.OSVersion,
			State: d.State, Message: d.Message, Tags: d.Tags, Installed: d.Installed, MinutePrice: d.MinutePrice, Hardware: d.Hardware,
		}
	}
	return out
}

func leases(in []api.Lease) []store.Lease {
	out := make([]store.Lease, len(in))
	for i, l := range in {
		out[i] = store.Lease(l)
	}
	return out
}

func claims(refused []store.Refusal) api.DeviceClaims {
	c := api.DeviceClaims{Refused: make([]api.RefusedDevice, len(refused))}
	for i, r := range refused {
		c.Refused[i] = api.RefusedDevice(r)
	}
	return c
}
