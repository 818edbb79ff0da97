package ios

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"qgjob/internal/device"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

// filmed opens a simulator whose recordings are cut short, and says when so many segments were begun.
func filmed(t *testing.T, bounds filming) (s *simulatorSession, h *mac, begun func(file string)) {
	t.Helper()
	h = startMac(t, phonesim.IPhoneOptions{Simulator: true, Booted: true})
	d := h.driver(t)
	d.filming = bounds
	opened, err := d.Open(t.Context(), h.udid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	s = opened.(*simulatorSession)
	return s, h, func(file string) {
		t.Helper()
		devicetest.Eventually(t, 20*time.Second, file+" is begun", func() bool {
			_, err := os.Stat(filepath.Join(s.dir, "film", file))
			return err == nil
		})
	}
}

// wantFiles are those in a directory, each a film.
func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if text, err := os.ReadFile(filepath.Join(dir, e.Name())); err != nil || !strings.Contains(string(text), "ftyp") {
			t.Errorf("%s is %q, %v", e.Name(), text, err)
		}
	}
	if strings.Join(names, " ") != strings.Join(want, " ") {
		t.Errorf("kept %q, want %q", names, want)
	}
}

func beginFilm(t *testing.T, s *simulatorSession) device.Film {
	t.Helper()
	film, err := s.Film(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return film
}

var shortFilming = filming{segment: 300 * time.Millisecond, segments: 20, start: 5 * time.Second, stop: 10 * time.Second}

func TestRecordingIsCutIntoSegments(t *testing.T) {
	t.Parallel()
	s, _, begun := filmed(t, shortFilming)
	film, dir := beginFilm(t, s), t.TempDir()
	begun("video-03.mp4")
	if err := film.End(t.Context(), dir); err != nil {
		t.Error(err)
	}
	want := []string{"video-01.mp4", "video-02.mp4", "video-03.mp4"}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > len(want) { // this host was slow
		want = append(want, "video-04.mp4")
	}
	wantFiles(t, dir, want...)
	if _, err := os.Stat(filepath.Join(s.dir, "film")); err == nil {
		t.Error("the recording is still on this host")
	}
}

// A recording that is longer than is kept says so, and its first segments are there.
func TestRecordingHasABound(t *testing.T) {
	t.Parallel()
	bounds := shortFilming
	bounds.segments = 2
	s, _, _ := filmed(t, bounds)
	f, dir := beginFilm(t, s), t.TempDir()
	<-f.(*film).done
	if err := f.End(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "for its first 600ms only") {
		t.Errorf("it ends with %v", err)
	}
	wantFiles(t, dir, "video-01.mp4", "video-02.mp4")
}

// A recorder that fails keeps what was recorded before.
func TestRecorderThatFailsLater(t *testing.T) {
	t.Parallel()
	s, h, begun := filmed(t, shortFilming)
	f, dir := beginFilm(t, s), t.TempDir()
	begun("video-02.mp4")
	if err := h.IPhone(h.udid).SetFault(phonesim.Fault{Kind: phonesim.FaultNoRecorder}); err != nil {
		t.Fatal(err)
	}
	<-f.(*film).done
	if err := f.End(t.Context(), dir); err == nil || !strings.Contains(err.Error(), "does not record its screen: Error creating the video") {
		t.Errorf("it ends with %v", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 || entries[0].Name() != "video-01.mp4" {
		t.Errorf("kept %v, %v", entries, err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// What simctl may do that the simulated one does not.
func TestRecordersOfOtherKinds(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		keeps  bool
		says   string
		within time.Duration
	}{
		"its exit code tells of the signal": {`trap 'movie; exit 130' INT; echo Recording started >&2; ` + forEver, true, "", 4 * time.Second},
		"it warns before it records":        {`echo 'objc[1]: Class X is implemented in both' >&2; trap 'exit 1' INT; sleep 0.5; trap 'movie; exit 0' INT; echo Recording started >&2; ` + forEver, true, "", 4 * time.Second},
		"it writes nothing":                 {`trap 'echo Wrote video; exit 0' INT; echo Recording started >&2; ` + forEver, false, "Wrote video", 4 * time.Second},
		"it does not end":                   {`trap '' INT; echo Recording started >&2; ` + forEver, false, "does not end", 4 * time.Second},
		"it is killed while it records":     {`movie; kill -9 $$`, false, "does not record", 4 * time.Second},
		"it is killed while it ends":        {`trap 'movie; kill -9 $$' INT; echo Recording started >&2; ` + forEver, false, "does not record", 4 * time.Second},
		"it never says that it records":     {`trap 'movie; exit 0' INT; ` + forEver, true, "", 6 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _, _ := filmed(t, filming{segment: time.Hour, segments: 2, start: time.Second, stop: 2 * time.Second})
			bin := t.TempDir()
			script := "#!/bin/bash\nf=${!#}\nmovie() { echo ....ftypqt >\"$f\"; }\n: >\"$f\"\n" + c.script + "\n"
			if err := os.WriteFile(filepath.Join(bin, "xcrun"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			s.simulator.path = bin + string(filepath.ListSeparator) + os.Getenv("PATH")
			began := time.Now()
			f, err := s.Film(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			err = f.End(ctx, dir)
			if c.keeps && err != nil || !c.keeps && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("it ends with %v", err)
			}
			if c.keeps {
				wantFiles(t, dir, "video-01.mp4")
			} else {
				wantFiles(t, dir)
			}
			if took := time.Since(began); took > c.within {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// forEver waits, and sees signals meanwhile.
const forEver = `while :; do sleep 0.05; done`

// A worker that has no time does not wait for a recording, and nothing of it is left.
func TestRecordingThatNobodyWaitsFor(t *testing.T) {
	t.Parallel()
	s, _, _ := filmed(t, filming{segment: time.Hour, segments: 2, start: time.Second, stop: time.Hour})
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "xcrun"), []byte("#!/bin/bash\ntrap '' INT TERM\necho $$ >"+bin+"/pid\necho Recording started >&2\n"+forEver+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.simulator.path = bin + string(filepath.ListSeparator) + os.Getenv("PATH")
	f := beginFilm(t, s)
	text, err := os.ReadFile(filepath.Join(bin, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := f.End(ctx, t.TempDir()); err == nil || !strings.Contains(err.Error(), "does not end in time") {
		t.Errorf("it ends with %v", err)
	}
	devicetest.Eventually(t, 5*time.Second, "nothing is left of the recorder", func() bool { return devicetest.GroupGone(pid) })
}
