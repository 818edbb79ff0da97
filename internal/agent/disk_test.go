package agent

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// testDisk is one whose free space the test chooses, and grows as files of a directory go.
type testDisk struct {
	mu   sync.Mutex
	free int64
	dir  string
	had  int // files
}

func (d *testDisk) files() int {
	files, _ := filepath.Glob(filepath.Join(d.dir, "*", "old*"))
	return len(files)
}

func (d *testDisk) space(string) (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.free + int64(d.had-d.files())*100, nil
}

func (d *testDisk) set(free int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.free = free
}

func TestWorkerLowOnSpaceTakesNoJob(t *testing.T) {
	w := newWorld(t, 0)
	d := &testDisk{free: 50}
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Runner: specs{"tests/good.spec.js": passes}, Space: d.space, MinFree: 100})
	k.out.wait(t, "No jobs are taken: its host is low on disk space", 1)
	id := w.submit("tests/good.spec.js", 1)
	k.lookAtDisk(time.Now())
	if free := func() []string { k.mu.Lock(); defer k.mu.Unlock(); return k.free() }(); len(free) > 0 {
		t.Errorf("it offers %v", free)
	}
	if j := w.job(id); j.State != qgjob.Queued {
		t.Errorf("the job is %s", j.State)
	}
	list, err := w.client.Devices(t.Context())
	for _, found := range list.Devices {
		if found.State != qgjob.DeviceOffline || !strings.Contains(found.Message, "low on disk space") {
			t.Errorf("the server says of the device: %+v, %v", found, err)
		}
	}
	d.set(200)
	if j := w.verdict(id); j.State != qgjob.Passed {
		t.Errorf("with space again, the job is %s", j.State)
	}
	k.out.wait(t, "There is space on the disk again", 1)
}

// TestCachesMakeRoom: the oldest go first, and only as many as it takes; what may be in use stays.
func TestCachesMakeRoom(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{
		"cache/old-1.apk": 50 * time.Hour, "dependencies/old-2": 40 * time.Hour, "cache/old-3.apk": 30 * time.Hour,
		"cache/in-use.apk": time.Minute, "dependencies/held.lock": 90 * time.Hour,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	d := &testDisk{free: 10, dir: dir, had: 3}
	a := &Agent{o: Options{DataDir: dir, Space: d.space, MinFree: 200}.withDefaults(), hold: &cache{dir: filepath.Join(dir, "cache")}}
	a.makeRoom(now)
	left, _ := filepath.Glob(filepath.Join(dir, "*", "*"))
	want := []string{"cache/in-use.apk", "cache/old-3.apk", "dependencies/held.lock"}
	for i := range left {
		left[i], _ = filepath.Rel(dir, left[i])
	}
	if strings.Join(left, " ") != strings.Join(want, " ") {
		t.Errorf("left: %v, want %v", left, want)
	}
}
