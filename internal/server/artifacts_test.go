package server_test

import (
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/server"
	"qgjob/internal/store"
)

// names are a job's artifacts as attempt/name.
func (r *running) names(job string) (names []string, list []qgjob.Artifact) {
	r.t.Helper()
	l, err := r.Artifacts(r.t.Context(), job)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, a := range l.Artifacts {
		names = append(names, string(rune('0'+a.Attempt))+"/"+a.Name)
	}
	return names, l.Artifacts
}

func (r *running) content(a qgjob.Artifact) string {
	r.t.Helper()
	body, err := r.Artifact(r.t.Context(), a)
	if err != nil {
		r.t.Fatalf("%s: %v", a.Name, err)
	}
	data, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

func TestArtifactsTravel(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		job := r.submit("a.spec.js")
		first := w.take("P1")
		for name, text := range map[string]string{"device.log": "first", qgjob.ArtifactBlobReport: "a zip"} {
			if stored, err := r.AddArtifact(t.Context(), first.Lease, name, fileOf(text)); err != nil || stored.Size != int64(len(text)) {
				t.Fatalf("%s: %+v, %v", name, stored, err)
			}
		}
		w.report(first.Lease, failed)
		// The attempt's worker may be late; a stranger may not.
		if _, err := r.AddArtifact(t.Context(), first.Lease, "device.log", fileOf("first, whole")); err != nil {
			t.Errorf("after the result: %v", err)
		}
		for _, l := range []api.Lease{{AttemptID: first.AttemptID, Token: "1.guessed"}, {AttemptID: newUUID(), Token: first.Token}} {
			if _, err := r.AddArtifact(t.Context(), l, "device.log", fileOf("forged")); qgjob.ErrorCode(err) != qgjob.CodeLeaseLost {
				t.Errorf("with lease %v: %v", l, err)
			}
		}
		for _, name := range []string{"a..b", "A", ".hidden", "a%2Fb", "a%20b"} {
			a := r.do(http.MethodPut, "/v1/attempts/"+first.AttemptID+"/artifacts/"+name+"?sha256="+fileOf("x").SHA256, "x", api.LeaseTokenHeader, first.Token)
			if a.status < 400 || a.status > 499 {
				t.Errorf("artifact named %q: %d %s", name, a.status, a.body)
			}
		}
		second := w.take("P1")
		if _, err := r.AddArtifact(t.Context(), second.Lease, "device.log", fileOf("second")); err != nil {
			t.Fatal(err)
		}
		names, list := r.names(job)
		if want := []string{"1/blob-report", "1/device.log", "2/device.log"}; !slices.Equal(names, want) {
			t.Fatalf("artifacts %q, want %q", names, want)
		}
		if a, b := r.content(list[1]), r.content(list[2]); a != "first, whole" || b != "second" {
			t.Errorf("the device logs are %q and %q", a, b)
		}
		list[0].Name = "nothing"
		if _, err := r.Artifact(t.Context(), list[0]); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
			t.Errorf("an artifact that is not there: %v", err)
		}
	})
}

// TestArtifactsAreKeptWithinBounds: the oldest go first, and a file goes when nothing names it any more: its artifacts were forgotten, another
// file took its place, or its upload was broken off.
func TestArtifactsAreKeptWithinBounds(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		job := r.submit("a.spec.js")
		lease := w.take("P1").Lease
		for _, a := range []struct{ name, text string }{{"one", "first"}, {"one", "same"}, {"two", "same"}, {"three", "other"}} {
			if _, err := r.AddArtifact(t.Context(), lease, a.name, fileOf(a.text)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Millisecond) // their order is that of their time
		}
		if _, err := r.store.MayAddArtifact(t.Context(), lease.AttemptID, lease.Token, strings.Repeat("ab", 32)); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			within server.Retention
			rest   time.Duration
			names  []string
			files  int
		}{
			{server.Retention{Age: time.Hour, Size: 13}, 0, []string{"1/one", "1/three", "1/two"}, 2},
			{server.Retention{Size: 12}, 0, []string{"1/three", "1/two"}, 2},
			{server.Retention{Size: 8}, 0, []string{"1/three"}, 1},
			{server.Retention{Age: time.Millisecond}, time.Hour, nil, 1}, // files that are young stay for a while
			{server.Retention{}, 0, nil, 0},
		} {
			time.Sleep(2 * time.Millisecond)
			if err := r.server.Retain(t.Context(), step.within, step.rest); err != nil {
				t.Fatal(err)
			}
			names, _ := r.names(job)
			files, _ := filepath.Glob(filepath.Join(r.files, "artifacts", "*", "*", "*"))
			if !slices.Equal(names, step.names) || len(files) != step.files {
				t.Errorf("within %+v, with %v of rest, stay %q in %q", step.within, step.rest, names, files)
			}
		}
		if files, _, err := r.store.UnnamedFiles(t.Context(), 0, store.UnnamedFile{}); err != nil || len(files) > 0 {
			t.Errorf("files %v are still known: %v", files, err)
		}
	})
}
