// Package load makes the jobs that all contestants are given, the same ones for each, and runs clients and
// workers side by side.
package load

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"

	"qgjob/internal/api"
)

// Groups is how many app versions the jobs are spread over: the builds that a few teams test on one day.
const Groups = 20

// Jobs makes submits: each is one run of one app version, the next one's in turn, with spec files of usual names.
// It is used by one goroutine at a time.
type Jobs struct{ made int }

// NewJobs returns a maker of submits that starts at a random app version, so that clients do not go in step.
func NewJobs() *Jobs {
	var b [1]byte
	_, _ = rand.Read(b[:])
	return &Jobs{made: int(b[0])}
}

// Next is the next submit, with so many jobs.
func (j *Jobs) Next(jobs int) api.SubmitRequest {
	j.made++
	s := api.SubmitRequest{
		OrgID: "bench", AppVersionID: fmt.Sprintf("shop-2.14.%d", j.made%Groups),
		Jobs: make([]api.JobSpec, jobs), IdempotencyKey: "once-" + uuid.Must(uuid.NewV7()).String(),
	}
	for i := range s.Jobs {
		s.Jobs[i].TestPath = fmt.Sprintf("tests/checkout/spec-%04d.spec.js", (j.made+i)%10000)
	}
	return s
}

// BodyHash is as long as the SHA-256 of a request that is kept with its idempotency key.
var BodyHash = strings.Repeat("0", 64)

// Body is the next submit as JSON.
func (j *Jobs) Body(jobs int) []byte {
	body, err := json.Marshal(j.Next(jobs))
	if err != nil {
		panic(err) // strings and numbers always can be encoded
	}
	return body
}

// Together runs f n times at once, until all have returned. The first error ends the others' context and is
// returned; that the given context ended is none.
func Together(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if err := f(group, i); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(group); err != nil && ctx.Err() == nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}
