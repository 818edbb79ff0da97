package agent

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
)

// leaving is a runner whose specs leave files, and write to Appium's log.
type leaving struct {
	specs
	appiumLog string
	files     map[string]string
}

func (r leaving) Run(ctx context.Context, t Task, p Plan, on Setup, log io.Writer) (Verdict, error) {
	for name, text := range r.files {
		path := filepath.Join(t.ArtifactsDir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return Verdict{}, err
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return Verdict{}, err
		}
	}
	file, err := os.OpenFile(r.appiumLog, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return Verdict{}, err
	}
	defer file.Close()
	if _, err := io.WriteString(file, "this attempt's session\n"); err != nil {
		return Verdict{}, err
	}
	return r.specs.Run(ctx, t, p, on, log)
}

func TestWhatAnAttemptLeavesIsKept(t *testing.T) {
	w := newWorld(t, 0)
	phones := newPhones("P1")
	phones.appiumLog = filepath.Join(t.TempDir(), "appium.log")
	if err := os.WriteFile(phones.appiumLog, []byte("an earlier attempt's session\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: leaving{
		specs: specs{"tests/good.spec.js": passes, "tests/bad.spec.js": fails}, appiumLog: phones.appiumLog,
		files: map[string]string{
			"report.json": "{}", "blob-report/report-1.zip": "a blob", "test-results/starts/trace.zip": "a trace",
			"test-results/.last-run.json": "{}", "Not a name": "x",
		},
	}})
	for spec, want := range map[string]string{
		"tests/good.spec.js": "appium.log blob-report device.log report.json test-results.zip",
		"tests/bad.spec.js":  "appium.log blob-report device.log report.json screen.png test-results.zip",
	} {
		id := w.submit(spec, 1)
		w.verdict(id)
		kept, err := w.client.Artifacts(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		content := map[string]string{}
		var names []string
		for _, a := range kept.Artifacts {
			if a.Attempt != 1 {
				continue
			}
			names = append(names, a.Name)
			body, err := w.client.Artifact(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			data, err := io.ReadAll(body)
			if err != nil {
				t.Fatal(err)
			}
			body.Close()
			content[a.Name] = string(data)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s left %s, want %s", spec, got, want)
		}
		if content[qgjob.ArtifactBlobReport] != "a blob" || content[qgjob.ArtifactAppiumLog] != "this attempt's session\n" || content[qgjob.ArtifactDeviceLog] != "since 12:00" {
			t.Errorf("%s left %q", spec, content)
		}
		results, err := zip.NewReader(bytes.NewReader([]byte(content[qgjob.ArtifactTestResults])), int64(len(content[qgjob.ArtifactTestResults])))
		if err != nil || len(results.File) != 1 || results.File[0].Name != "starts/trace.zip" {
			t.Errorf("%s: the tests' own output holds %+v, %v", spec, results, err)
		}
	}
	k.stop()
	if err := k.end(); err != nil {
		t.Error(err)
	}
}

// A device does not wait for a server that takes no files: its next job runs, and what the attempts left comes when the server takes it again.
func TestADeviceDoesNotWaitForItsArtifacts(t *testing.T) {
	usual := artifactSilence
	artifactSilence = 200 * time.Millisecond
	t.Cleanup(func() { artifactSilence = usual })
	w := newWorld(t, 0)
	open := w.files.close()
	t.Cleanup(open)
	phones := newPhones("P1")
	phones.appiumLog = filepath.Join(t.TempDir(), "appium.log")
	k := w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: specs{"tests/good.spec.js": passes}})
	began := time.Now()
	var ids []string
	for range 3 {
		id := w.submit("tests/good.spec.js", 1)
		if j := w.verdict(id); j.State != qgjob.Passed {
			t.Fatalf("job %s is %s", id, j.State)
		}
		ids = append(ids, id)
	}
	if took := time.Since(began); took > artifactTime/2 {
		t.Errorf("three jobs took %v: they waited for their uploads", took)
	}
	open()
	k.stop() // a worker that ends waits for them
	if err := k.end(); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		kept, err := w.client.Artifacts(t.Context(), id)
		if err != nil || len(kept.Artifacts) != 1 || kept.Artifacts[0].Name != qgjob.ArtifactDeviceLog {
			t.Errorf("job %s left %+v, %v", id, kept, err)
		}
	}
}

// Of Appium's log the end is kept, from the attempt's begin on, and never the rest of a line.
func TestEndOfAStretchIsKept(t *testing.T) {
	path, to := filepath.Join(t.TempDir(), "appium.log"), filepath.Join(t.TempDir(), "kept.log")
	line := []byte(strings.Repeat("0123456789", 99) + "012345678\n") // a thousand bytes
	for _, c := range []struct{ before, lines int }{{0, 3}, {5, 3}, {5, maxStretch / 1000}, {5, maxStretch/1000 + 7}} {
		if err := os.WriteFile(path, bytes.Repeat(line, c.before), 0o600); err != nil {
			t.Fatal(err)
		}
		s := beginStretch(path)
		if err := os.WriteFile(path, bytes.Repeat(line, c.before+c.lines), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.save(to); err != nil {
			t.Fatal(err)
		}
		kept, err := os.ReadFile(to)
		if want := bytes.Repeat(line, min(c.lines, maxStretch/1000)); err != nil || !bytes.Equal(kept, want) {
			t.Errorf("of %d lines after %d it keeps %d bytes, want %d, %v", c.lines, c.before, len(kept), len(want), err)
		}
	}
}

// A log that breaks off is no harm: the attempt passes, and what there was is kept.
func TestLogThatBreaksOff(t *testing.T) {
	w := newWorld(t, 0)
	phones := newPhones("P1")
	phones.appiumLog = filepath.Join(t.TempDir(), "appium.log")
	w.start(Options{Drivers: []device.Driver{mumbling{phones}}, Forever: true, Runner: specs{"tests/good.spec.js": passes}})
	id := w.submit("tests/good.spec.js", 1)
	if d := w.verdict(id); d.State != qgjob.Passed {
		t.Errorf("the job is %s: %s", d.State, d.Message)
	}
	kept, err := w.client.Artifacts(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(kept.Artifacts, func(a qgjob.Artifact) bool { return a.Name == qgjob.ArtifactDeviceLog })
	if at < 0 {
		t.Fatalf("kept %+v", kept.Artifacts)
	}
	body, err := w.client.Artifact(t.Context(), kept.Artifacts[at])
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if text, err := io.ReadAll(body); err != nil || string(text) != "a line\n" {
		t.Errorf("kept %q, %v", text, err)
	}
}

// mumbling is a driver whose devices' logs break off.
type mumbling struct{ *phones }

func (d mumbling) Open(ctx context.Context, serial string) (device.Session, error) {
	s, err := d.phones.Open(ctx, serial)
	if err != nil {
		return nil, err
	}
	return mumbled{s.(*session)}, nil
}

type mumbled struct{ *session }

func (mumbled) LogSince(_ context.Context, _ string, w io.Writer) error {
	_, err := io.WriteString(w, "a line\nhalf a l")
	return errors.Join(err, errors.New("the log broke off"))
}

func TestCrashIsReadFromTheDevicesLog(t *testing.T) {
	const other = "06-01 10:00:00.000  900  900 E AndroidRuntime: FATAL EXCEPTION: main\n" +
		"06-01 10:00:00.000  900  900 E AndroidRuntime: Process: com.example.other, PID: 900\n" +
		"06-01 10:00:00.000  900  900 E AndroidRuntime: java.lang.Error: not ours\n"
	const ours = "06-01 10:00:01.000  901  901 E AndroidRuntime: FATAL EXCEPTION: main\n" +
		"06-01 10:00:01.000  901  901 E AndroidRuntime: Process: com.example.shop, PID: 901\n" +
		"06-01 10:00:01.000  901  901 E AndroidRuntime: java.lang.RuntimeException: no bread\n" +
		"06-01 10:00:01.000  901  901 E AndroidRuntime: \tat com.example.shop.Cart.add(Cart.java:7)\n" +
		"06-01 10:00:01.000  901  901 E AndroidRuntime: \tat com.example.shop.Main.tap(Main.java:9)\n" +
		"06-01 10:00:02.000  500  500 I ActivityManager: Process com.example.shop (pid 901) has died\n"
	const told = "java.lang.RuntimeException: no bread | at com.example.shop.Cart.add(Cart.java:7)"
	for log, want := range map[string]string{"": "", other: "", ours: told, other + ours: told, ours + other: told} {
		path := filepath.Join(t.TempDir(), "device.log")
		if err := os.WriteFile(path, []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := crash(path, "com.example.shop"); got != want {
			t.Errorf("of %q it told %q, want %q", log, got, want)
		}
	}
	if got := crash(filepath.Join(t.TempDir(), "none"), "com.example.shop"); got != "" {
		t.Errorf("of no log it told %q", got)
	}
}

// filming is a driver whose devices record their screens.
type filming struct{ *phones }

func (d filming) Open(ctx context.Context, serial string) (device.Session, error) {
	s, err := d.phones.Open(ctx, serial)
	if err != nil {
		return nil, err
	}
	return filmed{s.(*session)}, nil
}

type filmed struct{ *session }

func (filmed) Film(context.Context) (device.Film, error) { return film{}, nil }

type film struct{}

func (film) End(_ context.Context, dir string) error {
	if dir == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(dir, "video-01.mp4"), []byte("a film"), 0o600)
}

func TestVideosAreKeptAsAsked(t *testing.T) {
	w := newWorld(t, 0)
	phones := newPhones("P1")
	phones.appiumLog = filepath.Join(t.TempDir(), "appium.log")
	w.start(Options{Drivers: []device.Driver{filming{phones}}, Forever: true, Runner: specs{"tests/good.spec.js": passes, "tests/bad.spec.js": fails}})
	for _, c := range []struct {
		video, spec string
		kept        bool
	}{
		{"", "tests/bad.spec.js", false},
		{"off", "tests/bad.spec.js", false},
		{"on", "tests/good.spec.js", true},
		{"on", "tests/bad.spec.js", true},
		{"retain-on-failure", "tests/good.spec.js", false},
		{"retain-on-failure", "tests/bad.spec.js", true},
	} {
		run, err := w.client.Submit(t.Context(), api.SubmitRequest{OrgID: "qualgent", AppVersionID: "xyz123", Video: c.video, Jobs: []api.JobSpec{{TestPath: c.spec}}})
		if err != nil {
			t.Fatal(err)
		}
		id := run.Jobs[0].ID
		w.verdict(id)
		list, err := w.client.Artifacts(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if kept := slices.ContainsFunc(list.Artifacts, func(a qgjob.Artifact) bool { return a.Name == "video-01.mp4" }); kept != c.kept {
			t.Errorf("video %q of %s: kept %v", c.video, c.spec, kept)
		}
	}
}
