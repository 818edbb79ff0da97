// Package pushes makes workloads: what the pushes of a few teams ask of a fleet. The same plan and seed give the
// same workload.
package pushes

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"qgjob"
	"qgjob/internal/simulate"
)

// Plan is what to make.
type Plan struct {
	Devices int
	Load    float64 // the tests' own time by the devices' time
	Least   int     // jobs a push
	Most    int
	Hours   float64
	Seed    uint64
}

// InstallMS is how long an install takes: as long as an average test.
const (
	InstallMS = 40_000
	ResetMS   = 1_500
)

// mix is how often what happens.
var (
	organizations = []struct {
		id    string
		share float64
	}{{"apollo", 0.4}, {"borealis", 0.3}, {"cobalt", 0.2}, {"dune", 0.1}}
	priorities = []struct {
		priority int
		share    float64
	}{{0, 0.1}, {1, 0.4}, {3, 0.3}, {10, 0.2}}
)

const (
	specsOfOrganization = 60
	pushesOfBurst       = 4    // on average; within a minute
	sameVersion         = 0.15 // pushes of the version before
	onDevice            = 0.2  // pushes that ask for a phone by name
	slow                = 0.01 // tests that take four times as long
	spread              = 0.6  // of the specs' times, as the deviation of their logarithms
	noise               = 0.1  // of one spec's
)

// Fleet is so many alike devices.
func Fleet(devices int) simulate.Fleet {
	var f simulate.Fleet
	for i := range devices {
		f.Devices = append(f.Devices, simulate.Device{ID: fmt.Sprintf("d%03d", i+1), Target: qgjob.TargetDevice, InstallMS: InstallMS, ResetMS: ResetMS})
	}
	for _, o := range organizations {
		f.Orgs = append(f.Orgs, simulate.Org{ID: o.id, Weight: 1})
	}
	return f
}

type maker struct {
	*rand.Rand
	slow     float64
	specs    map[string][]float64 // typical milliseconds
	versions map[string]int
	fresh    int // version of the next push; 0: as it comes
	jobs     []simulate.Job
	runs     int
	work     float64
}

func newMaker(seed uint64, slow, spread float64) *maker {
	m := &maker{Rand: rand.New(rand.NewPCG(seed, 20)), slow: slow, specs: map[string][]float64{}, versions: map[string]int{}}
	for _, o := range organizations {
		var sum float64
		var specs []float64
		for range specsOfOrganization {
			ms := math.Exp(spread * m.NormFloat64())
			specs = append(specs, ms)
			sum += ms
		}
		for i := range specs { // InstallMS on average
			specs[i] *= InstallMS * specsOfOrganization / sum / (1 + 3*slow)
		}
		m.specs[o.id] = specs
	}
	return m
}

// Bursts makes pushes that come in bursts.
func Bursts(p Plan) []simulate.Job {
	m := newMaker(p.Seed, slow, spread)
	horizon := p.Hours * 3_600_000
	for m.work < p.Load*horizon*float64(p.Devices) {
		start := m.Float64() * horizon
		for range 1 + m.IntN(2*pushesOfBurst-1) {
			m.push(int64(start+m.Float64()*60_000), p.Least+m.IntN(p.Most-p.Least+1))
		}
	}
	slices.SortStableFunc(m.jobs, func(a, b simulate.Job) int { return cmp.Compare(a.AtMS, b.AtMS) })
	return m.jobs
}

// Closed makes one burst of everything at once: so many jobs a device, in so many versions of one priority, of
// random sizes or all alike. There are no slow tests in it, and specs differ less: what is not known before the first
// run cannot be planned for.
func Closed(devices, jobsOfDevice, versions int, seed uint64, equal bool) []simulate.Job {
	m := newMaker(seed, 0, spread/2)
	total := devices * jobsOfDevice
	cuts := []int{0, total}
	for len(cuts) < versions+1 {
		if c := 1 + m.IntN(total-1); !slices.Contains(cuts, c) {
			cuts = append(cuts, c)
		}
	}
	slices.Sort(cuts)
	if equal {
		for i := range cuts {
			cuts[i] = total * i / versions
		}
	}
	for i := range versions {
		m.fresh = i + 1
		m.pushAs(0, cuts[i+1]-cuts[i], organizations[m.IntN(len(organizations))].id, 1, qgjob.TargetAny)
	}
	return m.jobs
}

func (m *maker) push(atMS int64, jobs int) {
	org, priority := organizations[0].id, priorities[0].priority
	x := m.Float64()
	for _, o := range organizations {
		if x -= o.share; x < 0 {
			org = o.id
			break
		}
	}
	x = m.Float64()
	for _, p := range priorities {
		if x -= p.share; x < 0 {
			priority = p.priority
			break
		}
	}
	target := qgjob.TargetAny
	if m.Float64() < onDevice {
		target = qgjob.TargetDevice
	}
	m.pushAs(atMS, jobs, org, priority, target)
}

func (m *maker) pushAs(atMS int64, jobs int, org string, priority int, target qgjob.Target) {
	if m.versions[org] == 0 || m.Float64() >= sameVersion {
		m.versions[org]++
	}
	if m.fresh > 0 {
		m.versions[org] = m.fresh
	}
	m.runs++
	specs := m.specs[org]
	first := m.IntN(len(specs))
	for i := range jobs {
		n := (first + i) % len(specs)
		ms := specs[n] * math.Exp(noise*m.NormFloat64())
		if m.Float64() < m.slow {
			ms *= 4
		}
		m.work += ms
		m.jobs = append(m.jobs, simulate.Job{
			ID: fmt.Sprintf("j%d", len(m.jobs)+1), AtMS: atMS, Org: org, AppVersion: fmt.Sprintf("v%d", m.versions[org]),
			Test: fmt.Sprintf("tests/%d.spec.ts", n), Priority: priority, Target: target, Run: fmt.Sprintf("r%d", m.runs), DurationMS: int64(ms),
		})
	}
}
