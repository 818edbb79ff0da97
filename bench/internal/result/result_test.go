package result

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qgjob/bench/internal/contest"
)

// measured is a run of two contestants over three rounds in which each had its turn first once.
func measured() *Results {
	r := &Results{Machine: Machine{Cores: 2, CPU: "test"}, Rounds: 3}
	for round, v := range []float64{900, 3000, 1000} {
		r.Samples = append(r.Samples,
			Sample{Submit, contest.RiverHTTPTuned, "16 clients", round + 1, v},
			Sample{Submit, contest.QgjobSQLite, "16 clients", round + 1, 3.5 * v})
	}
	return r
}

func TestReportShowsMediansRatiosAndAims(t *testing.T) {
	report := measured().Report()
	for _, want := range []string{"1,000 |", "3,500 (3.50×) |", "times River's best over HTTP | at least 3.00× |    3.50× | yes |"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
	if qgjob, river := strings.Index(report, "| qgjob on SQLite  "), strings.Index(report, "| River over HTTP, tuned"); qgjob < 0 || qgjob > river {
		t.Errorf("qgjob's row is not before River's:\n%s", report)
	}
}

func TestReportSaysWhichAimIsMissed(t *testing.T) {
	r := &Results{Samples: []Sample{
		{Latency, contest.QgjobSQLite, "p50", 1, 1.4},
		{Latency, contest.QgjobSQLite, "p99", 1, 7},
	}}
	report := r.Report()
	for _, want := range []string{"at most 1.50 ms |  1.40 ms |    yes", "at most 3.00 ms |  7.00 ms | **no**"} {
		if !strings.Contains(report, want) {
			t.Errorf("the report lacks %q:\n%s", want, report)
		}
	}
}

func TestWriteReadmeReplacesTheResultsOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(path, []byte("before\n"+begin+"old numbers\n"+end+"after\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := measured()
	for range 2 {
		if err := r.WriteReadme(path); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(data), "before\n"+begin+"\n"+r.Report()+"\n"+end+"after\n"; got != want {
		t.Errorf("the README is\n%s\nnot\n%s", got, want)
	}
	if err := os.WriteFile(path, []byte("no markers\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := r.WriteReadme(path); err == nil {
		t.Error("a README without markers was written")
	}
}

func TestResultsSurviveAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	if err := measured().Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := loaded.Report(), measured().Report(); got != want {
		t.Errorf("the report is\n%s\nnot\n%s", got, want)
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		measure string
		value   float64
		want    string
	}{
		{Submit, 0, "0"},
		{Submit, 987, "987"},
		{Submit, 23456, "23,500"},
		{Drain, 1234567, "1,230,000"},
		{Latency, 1.234, "1.23 ms"},
		{Latency, 53.21, "53.2 ms"},
		{Depth, 1999.6, "2000 ms"},
		{Memory, 20 << 10, "20 KiB"},
		{Memory, 64 << 20, "64 MiB"},
	} {
		if got := Format(c.measure, c.value); got != c.want {
			t.Errorf("%s of %v is %q, not %q", c.measure, c.value, got, c.want)
		}
	}
}
