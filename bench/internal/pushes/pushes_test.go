package pushes_test

import (
	"math"
	"reflect"
	"testing"

	"qgjob/bench/internal/pushes"
)

func TestBursts(t *testing.T) {
	p := pushes.Plan{Devices: 8, Load: 0.9, Least: 10, Most: 80, Hours: 2, Seed: 3}
	jobs := pushes.Bursts(p)
	var work float64
	sizes := map[string]int{}
	for i, j := range jobs {
		work += float64(j.DurationMS)
		sizes[j.Run]++
		if i > 0 && j.AtMS < jobs[i-1].AtMS {
			t.Fatalf("%+v comes after %+v", j, jobs[i-1])
		}
	}
	if load := work / (p.Hours * 3_600_000 * float64(p.Devices)); load < 0.9 || load > 1.2 {
		t.Errorf("a load of %.2f", load)
	}
	if mean := work / float64(len(jobs)); math.Abs(mean/pushes.InstallMS-1) > 0.2 {
		t.Errorf("an average test takes %.0f ms, an install %d", mean, pushes.InstallMS)
	}
	for run, n := range sizes {
		if n < p.Least || n > p.Most {
			t.Errorf("%s has %d jobs", run, n)
		}
	}
	if !reflect.DeepEqual(jobs, pushes.Bursts(p)) {
		t.Error("one plan and seed gave two workloads")
	}
}

func TestClosed(t *testing.T) {
	for _, equal := range []bool{true, false} {
		jobs := pushes.Closed(8, 20, 16, 1, equal)
		versions := map[[2]string]int{}
		for _, j := range jobs {
			versions[[2]string{j.Org, j.AppVersion}]++
			if j.AtMS != 0 {
				t.Fatalf("%+v comes later", j)
			}
		}
		if len(jobs) != 160 || len(versions) != 16 {
			t.Errorf("%d jobs of %d versions", len(jobs), len(versions))
		}
	}
}
