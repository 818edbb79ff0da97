package plain

import (
	"context"
	"sync"

	"qgjob/internal/api"
)

// Backend group-commits submits to SQLite: those that arrive while a transaction is being committed share the
// next one. Behind the thin HTTP server it is what a job queue over HTTP can at best be.
type Backend struct {
	w     writer
	queue chan *submit
	ended sync.WaitGroup
}

type submit struct {
	request api.SubmitRequest
	ids     []string
	err     error
	done    chan struct{}
}

// mostSubmits is how many submits share a transaction.
const mostSubmits = 512

// OpenBackend makes the database and starts its writer.
func OpenBackend(ctx context.Context, path string) (*Backend, error) {
	w, err := openSQLite(ctx, path)
	if err != nil {
		return nil, err
	}
	b := &Backend{w: w, queue: make(chan *submit, mostSubmits)}
	b.ended.Go(b.write)
	return b, nil
}

// Submit returns when the submit's transaction has been committed.
func (b *Backend) Submit(_ context.Context, s api.SubmitRequest) ([]string, error) {
	c := &submit{request: s, done: make(chan struct{})}
	b.queue <- c
	<-c.done
	return c.ids, c.err
}

// Close waits for the writer. Submit is not called any more.
func (b *Backend) Close() error {
	close(b.queue)
	b.ended.Wait()
	return b.w.close()
}

func (b *Backend) write() {
	seq := int64(1)
	for first := range b.queue {
		group := []*submit{first}
		for more := true; more && len(group) < mostSubmits; {
			select {
			case c, ok := <-b.queue:
				if more = ok; ok {
					group = append(group, c)
				}
			default:
				more = false
			}
		}
		rows := newBatch()
		for _, c := range group {
			c.ids = rows.add(c.request, seq)
			seq += int64(len(c.ids))
		}
		err := rows.commit(context.Background(), b.w)
		for _, c := range group {
			c.err = err
			close(c.done)
		}
	}
}
