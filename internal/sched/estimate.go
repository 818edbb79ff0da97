package sched

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// memory is how many observations an estimate keeps.
const memory = 9

// errorMemory is how much of an estimate's error one observation makes up.
const errorMemory = 0.1

// Estimate is what is known of how long something takes: the last nine observations, oldest first, whose median it
// is. An outlier moves a median no further than to its neighbour, and what has really changed is followed after
// five observations. The zero value knows nothing. It is its own serial form.
type Estimate struct {
	RecentMS []int64 `json:"recent_ms,omitempty"`
	Error    float64 `json:"error,omitempty"` // of lately, from 0 to 1: how far the truth was off, as a part of the larger of both
	Count    int64   `json:"count,omitempty"` // observations that the error was taken from
}

// Observe returns the estimate after one more observation. Prior is what was expected without any.
func (e Estimate) Observe(took, prior time.Duration) Estimate {
	took = max(took, 0)
	off := 0.0
	if expected := e.Typical(prior); expected != took {
		off = math.Abs(float64(took-expected)) / float64(max(took, expected))
	}
	e.Count++
	e.Error += (off - e.Error) * max(errorMemory, 1/float64(e.Count))
	recent := append(slices.Clone(e.RecentMS), took.Milliseconds())
	e.RecentMS = recent[max(0, len(recent)-memory):]
	return e
}

// Typical is the expected duration: a median. The prior counts as one observation until there are three.
func (e Estimate) Typical(prior time.Duration) time.Duration {
	seen := slices.Clone(e.RecentMS)
	if len(seen) < 3 {
		seen = append(seen, prior.Milliseconds())
	}
	slices.Sort(seen)
	middle := seen[len(seen)/2]
	if len(seen)%2 == 0 {
		middle = (middle + seen[len(seen)/2-1]) / 2
	}
	return time.Duration(middle) * time.Millisecond
}

// Learned is what several estimates say together, the most particular one first: each is the prior of the one before
// it, as an organization's run times are of one of its specs.
func Learned(prior time.Duration, estimates ...Estimate) time.Duration {
	for _, e := range slices.Backward(estimates) {
		prior = cmp.Or(e.Typical(prior), prior)
	}
	return prior
}
