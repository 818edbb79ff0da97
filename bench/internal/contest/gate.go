package contest

import (
	"context"
	"sync"
)

// Gate lets a counted number of jobs through. A nil Gate lets through everything.
type Gate struct {
	mu     sync.Mutex
	free   int
	opened chan struct{} // closed, and replaced, when permits are added
}

// NewGate returns a Gate that lets nothing through yet.
func NewGate() *Gate { return &Gate{opened: make(chan struct{})} }

// Open lets n more jobs through.
func (g *Gate) Open(n int) {
	if g == nil || n == 0 {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free += n
	close(g.opened)
	g.opened = make(chan struct{})
}

// TryPass takes up to n permits without waiting.
func (g *Gate) TryPass(n int) int {
	if g == nil {
		return n
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	n = min(n, g.free)
	g.free -= n
	return n
}

// Pass takes up to n permits, waiting for at least one.
func (g *Gate) Pass(ctx context.Context, n int) (int, error) {
	if g == nil {
		return n, ctx.Err()
	}
	for {
		g.mu.Lock()
		opened := g.opened
		g.mu.Unlock()
		if got := g.TryPass(n); got > 0 {
			return got, nil
		}
		select {
		case <-opened:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}
