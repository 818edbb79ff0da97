package server_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/phonesim"
)

func TestBundlesTravel(t *testing.T) {
	r := start(t)
	data := strings.Repeat("spec files ", 100_000)
	f := fileOf(data)
	for _, want := range []bool{true, false} {
		if uploaded, err := r.EnsureBundle(t.Context(), "acme", f); err != nil || uploaded != want {
			t.Errorf("EnsureBundle = %v, %v; want %v", uploaded, err, want)
		}
	}
	if stored, err := r.UploadBundle(t.Context(), "acme", f); err != nil || stored.Size != f.Size || stored.SHA256 != f.SHA256 {
		t.Errorf("upload again = %+v, %v", stored, err)
	}
	body, err := r.Bundle(t.Context(), "acme", f.SHA256, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(body)
	if err = errors.Join(err, body.Close()); err != nil || string(got) != data {
		t.Errorf("downloaded %d bytes, %v", len(got), err)
	}
	if a := r.do(http.MethodGet, "/v1/bundles/"+f.SHA256+"?org_id=acme", "", "Range", "bytes=5-9"); a.status != http.StatusPartialContent || a.body != "files" {
		t.Errorf("range: %d %q", a.status, a.body)
	}
	if has, err := r.HasBundle(t.Context(), "other", f.SHA256); err != nil || has {
		t.Errorf("another organization has the bundle: %v, %v", has, err)
	}
	if _, err := r.Bundle(t.Context(), "other", f.SHA256, ""); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
		t.Errorf("another organization downloads the bundle: %v", err)
	}

	run, err := r.Submit(t.Context(), api.SubmitRequest{OrgID: "acme", AppVersionID: "v1", BundleSHA256: f.SHA256, Jobs: []api.JobSpec{{TestPath: "a.spec.js"}}})
	if err != nil || run.Jobs[0].BundleSHA256 != f.SHA256 {
		t.Errorf("Submit = %+v, %v", run, err)
	}
	if _, err := r.Submit(t.Context(), api.SubmitRequest{OrgID: "other", AppVersionID: "v1", BundleSHA256: f.SHA256, Jobs: []api.JobSpec{{TestPath: "a.spec.js"}}}); qgjob.ErrorCode(err) != qgjob.CodeInvalid {
		t.Errorf("submit of another organization's bundle: %v", err)
	}
}

func TestBrokenUploadsLeaveNothing(t *testing.T) {
	r := start(t)
	r.Patience = -1
	f := fileOf("hello")
	for name, body := range map[string]io.Reader{
		"other bytes": strings.NewReader("hullo"),
		"cut off":     iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("hello"))),
	} {
		broken := f
		broken.Open = func() (io.ReadCloser, error) { return io.NopCloser(body), nil }
		if _, err := r.UploadBundle(t.Context(), "acme", broken); err == nil {
			t.Errorf("%s: stored", name)
		}
		if has, err := r.HasBundle(t.Context(), "acme", f.SHA256); err != nil || has {
			t.Errorf("%s: HasBundle = %v, %v", name, has, err)
		}
	}
}

func TestBuildsTravel(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		apk, err := phonesim.BuildAPK(phonesim.App{Package: "com.example.shop", VersionCode: 7, VersionName: "1.7"})
		if err != nil {
			t.Fatal(err)
		}
		f := fileOf(string(apk))
		for _, want := range []bool{true, false} {
			if uploaded, err := r.EnsureBuild(t.Context(), "acme", "v1", f); err != nil || uploaded != want {
				t.Errorf("EnsureBuild = %v, %v; want %v", uploaded, err, want)
			}
		}
		builds, err := r.store.Builds(t.Context(), "acme", "v1")
		if err != nil || len(builds) != 1 || builds[0].Package != "com.example.shop" || builds[0].VersionCode != 7 || builds[0].VersionName != "1.7" || builds[0].Size != f.Size {
			t.Errorf("builds = %+v, %v", builds, err)
		}
		body, err := r.Build(t.Context(), "acme", "v1", f.SHA256, "")
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(body)
		if err = errors.Join(err, body.Close()); err != nil || string(got) != string(apk) {
			t.Errorf("downloaded %d bytes, %v", len(got), err)
		}
		for _, other := range [][2]string{{"acme", "v2"}, {"other", "v1"}} {
			if has, err := r.HasBuild(t.Context(), other[0], other[1], f.SHA256); err != nil || has {
				t.Errorf("%v has the build: %v, %v", other, has, err)
			}
		}
		run, err := r.Submit(t.Context(), api.SubmitRequest{OrgID: "acme", AppVersionID: "v1", Jobs: []api.JobSpec{{TestPath: "a.spec.js"}}})
		if err != nil || run.Jobs[0].BuildSHA256 != f.SHA256 {
			t.Errorf("Submit = %+v, %v; want the app version's newest build", run, err)
		}
	})
}

func TestABrokenBuildIsRefusedWithTheReason(t *testing.T) {
	r := start(t)
	f := fileOf("no APK at all")
	_, err := r.UploadBuild(t.Context(), "acme", "v1", f)
	if qgjob.ErrorCode(err) != qgjob.CodeInvalid || !strings.Contains(err.Error(), "is no APK") || strings.Contains(err.Error(), r.files) {
		t.Errorf("UploadBuild = %v; want the reason, and no path of the server", err)
	}
	if has, err := r.HasBuild(t.Context(), "acme", "v1", f.SHA256); err != nil || has {
		t.Errorf("HasBuild = %v, %v", has, err)
	}
	if builds, err := r.store.Builds(t.Context(), "acme", "v1"); err != nil || len(builds) > 0 {
		t.Errorf("builds = %+v, %v", builds, err)
	}
}

func TestAnUploadIsFinishedDuringAShutdown(t *testing.T) {
	r := start(t)
	f := fileOf("hello")
	read, write := io.Pipe()
	begun := make(chan struct{})
	f.Open = func() (io.ReadCloser, error) { close(begun); return read, nil }
	uploaded := make(chan error)
	go func() {
		_, err := r.UploadBundle(t.Context(), "acme", f)
		uploaded <- err
	}()
	<-begun
	if _, err := io.WriteString(write, "hel"); err != nil { // returns when the bytes are on their way
		t.Fatal(err)
	}
	r.untilReceiving()
	stopped := make(chan error)
	go func() { stopped <- r.stop() }()
	r.untilRefusing()
	if _, err := io.WriteString(write, "lo"); err != nil {
		t.Fatal(err)
	}
	if err := write.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-uploaded; err != nil {
		t.Errorf("upload = %v", err)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Serve = %v", err)
	}
}

// TestServersShareABucket: what one server was given, another one of the same database hands out, with nothing but the
// database and the bucket between them.
func TestServersShareABucket(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "tester")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tester")
	backend := s3mem.New()
	s3 := httptest.NewServer(gofakes3.New(backend).Server())
	defer s3.Close()
	if err := backend.CreateBucket("files"); err != nil {
		t.Fatal(err)
	}
	url := postgresURL(t)
	var servers [2]*running
	for i := range servers {
		blobs, err := blob.OpenS3(t.Context(), "s3://files?region=eu-central-1&endpoint="+s3.URL, filepath.Join(t.TempDir(), "tmp"))
		if err != nil {
			t.Fatal(err)
		}
		servers[i] = serveOver(t, openPostgres(t, url), blobs, "127.0.0.1:0")
	}
	bundle := fileOf("a project")
	if _, err := servers[0].UploadBundle(t.Context(), "acme", bundle); err != nil {
		t.Fatal(err)
	}
	run, err := servers[0].Submit(t.Context(), api.SubmitRequest{OrgID: "acme", AppVersionID: "v1", BundleSHA256: bundle.SHA256, Jobs: []api.JobSpec{{TestPath: "tests/a.spec.js"}}})
	if err != nil {
		t.Fatal(err)
	}
	w := servers[1].newWorker("P1")
	a := w.take("P1")
	got, err := servers[1].Bundle(t.Context(), "acme", a.Job.BundleSHA256, "")
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if data, err := io.ReadAll(got); err != nil || string(data) != "a project" {
		t.Errorf("the bundle from the other server: %q, %v", data, err)
	}
	if a := servers[1].do(http.MethodGet, "/v1/bundles/"+bundle.SHA256+"?org_id=acme", "", "Range", "bytes=2-"); a.status != http.StatusPartialContent || a.body != "project" {
		t.Errorf("the rest of it: %d %q", a.status, a.body)
	}
	if _, err := servers[1].AddArtifact(t.Context(), a.Lease, "report.json", fileOf("{}")); err != nil {
		t.Fatal(err)
	}
	w.report(a.Lease, passed)
	list, err := servers[0].Artifacts(t.Context(), run.Jobs[0].ID)
	if err != nil || len(list.Artifacts) != 1 {
		t.Fatalf("artifacts at the first server: %+v, %v", list, err)
	}
	body, err := servers[0].Artifact(t.Context(), list.Artifacts[0])
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if data, err := io.ReadAll(body); err != nil || string(data) != "{}" {
		t.Errorf("the artifact from the first server: %q, %v", data, err)
	}
}
