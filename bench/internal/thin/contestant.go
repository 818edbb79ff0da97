package thin

import (
	"context"
	"errors"
	"os"

	"qgjob/bench/internal/contest"
	"qgjob/bench/internal/rig"
)

// ServeArg is the first argument with which the benchmark's own binary is a thin server; the kind of backend,
// the address to listen on and where the data is follow.
const ServeArg = "serve-thin"

// Hosted is a thin server in a process of its own, as an Inbox.
type Hosted struct {
	process *rig.Process
	address string
	settle  func(context.Context) error
	remove  func(context.Context) error
}

// Host starts a thin server of a kind over data that settle and remove know.
func Host(ctx context.Context, r *rig.Rig, kind, data string, settle, remove func(context.Context) error) (*Hosted, error) {
	address, err := rig.FreeAddress()
	if err != nil {
		return nil, err
	}
	binary, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p, err := r.Start(ctx, rig.Command{Path: binary, Args: []string{ServeArg, kind, address, data}})
	if err != nil {
		return nil, err
	}
	if err := p.Await(ctx, "tcp", address); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	return &Hosted{process: p, address: address, settle: settle, remove: remove}, nil
}

// Address is where the server listens.
func (h *Hosted) Address() string { return h.address }

// Process is the server's process.
func (h *Hosted) Process() *rig.Process { return h.process }

// Client connects a client.
func (h *Hosted) Client(ctx context.Context) (contest.Client, error) {
	return NewClient(ctx, h.address)
}

// Settle brings the database to rest.
func (h *Hosted) Settle(ctx context.Context) error { return h.settle(ctx) }

// Close stops the server and removes the data.
func (h *Hosted) Close() error {
	return errors.Join(h.process.Stop(), h.remove(context.Background()))
}
