package appwright

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"qgjob"
)

// A device that owes an answer is looked at; a sick one ends the run, and one that answers does not.
func TestADeviceThatOwesAnAnswerIsLookedAt(t *testing.T) {
	release := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer upstream.Close()
	defer close(release)
	const patience = 50 * time.Millisecond
	sick := &Failure{Cause: qgjob.CauseDeviceHung, Message: "it does not answer"}
	for name, c := range map[string]struct {
		asks bool
		err  error
		ends bool
	}{
		"it owes nothing":       {false, sick, false},
		"it answers the look":   {true, nil, false},
		"it is sick":            {true, sick, true},
		"the look says no more": {true, context.DeadlineExceeded, true},
	} {
		t.Run(name, func(t *testing.T) {
			var looks atomic.Int32
			r := Run{Upstream: Upstream{URL: upstream.URL}, Check: func(context.Context) error {
				looks.Add(1)
				return c.err
			}}
			p, err := r.startProxy(t.Logf)
			if err != nil {
				t.Fatal(err)
			}
			asking, stop := context.WithCancel(t.Context())
			asked := make(chan struct{})
			if c.asks {
				go func() {
					defer close(asked)
					request, err := http.NewRequestWithContext(asking, http.MethodGet, "http://"+p.listener.Addr().String()+"/session/s/source", nil)
					if err == nil {
						_, err = http.DefaultClient.Do(request)
					}
					if err == nil {
						t.Error("it answered")
					}
				}()
			} else {
				close(asked)
			}
			watching, end := context.WithTimeout(t.Context(), 10*patience)
			defer end()
			var told error
			r.watchDevice(watching, p, patience, func(err error) { told = &sickDevice{err} })
			stop()
			<-asked
			p.close()
			if failure := sickness(told); (failure != nil) != c.ends || failure != nil && failure.Cause != qgjob.CauseDeviceHung {
				t.Errorf("told %v", told)
			}
			if (looks.Load() > 0) != c.asks {
				t.Errorf("%d looks", looks.Load())
			}
		})
	}
}
