package agent

import (
	"context"
	"sync"
)

// turns lets one at a time work on what a key names.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // closed at the end of the turn
}

// take waits for a turn. done ends it.
func (t *turns) take(ctx context.Context, key string) (done func(), err error) {
	for {
		t.mu.Lock()
		before := t.taken[key]
		if before == nil {
			if t.taken == nil {
				t.taken = map[string]chan struct{}{}
			}
			over := make(chan struct{})
			t.taken[key] = over
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.taken, key)
				close(over)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-before:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
