package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"qgjob"
	"qgjob/internal/build"
	"qgjob/internal/device"
)

func TestCacheHoldsWholeFilesOnly(t *testing.T) {
	dir := t.TempDir()
	c, err := openCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	content := bytes.Repeat([]byte("bundle"), 10_000)
	sum := sha256.Sum256(content)
	sha := hex.EncodeToString(sum[:])
	for name, body := range map[string]io.Reader{
		"cut off": io.MultiReader(bytes.NewReader(content[:5000]), iotest.ErrReader(errors.New("connection reset"))),
		"short":   bytes.NewReader(content[:5000]),
		"changed": bytes.NewReader(append([]byte("x"), content[1:]...)),
	} {
		_, err := c.get(t.Context(), sha, bundleExt, func(context.Context) (io.ReadCloser, error) { return io.NopCloser(body), nil })
		if device.CauseOf(err) != qgjob.CauseTransferFailed {
			t.Errorf("a download that is %s: %v", name, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "cache", "*")); len(left) > 0 {
			t.Errorf("a download that is %s left %v", name, left)
		}
	}

	var fetches atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			path, err := c.get(t.Context(), sha, bundleExt, func(context.Context) (io.ReadCloser, error) {
				fetches.Add(1)
				return io.NopCloser(bytes.NewReader(content)), nil
			})
			if got, readErr := os.ReadFile(path); err != nil || readErr != nil || !bytes.Equal(got, content) {
				t.Errorf("got %d bytes, %v, %v", len(got), err, readErr)
			}
		})
	}
	wg.Wait()
	if n := fetches.Load(); n != 1 {
		t.Errorf("one file was downloaded %d times", n)
	}
}

func TestCacheForgetsWhatWasNotUsedForLongest(t *testing.T) {
	dir := t.TempDir()
	c, err := openCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	make := func(name string, size int64, age time.Duration) {
		path := filepath.Join(c.dir, name)
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size), os.Chtimes(path, now, now.Add(-age))); err != nil {
			t.Fatal(err)
		}
	}
	make("new", cacheSize/2, time.Minute)
	make("middle", cacheSize/3, 24*time.Hour)
	make("old", cacheSize/3, 48*time.Hour)
	make("older", 1, 72*time.Hour)
	make("leftover.part", 1, 72*time.Hour)
	make("running.part", 1, time.Minute)
	c.evict(t.Context(), now, cacheRest)
	var left []string
	entries, _ := os.ReadDir(c.dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if got, want := len(left), 3; got != want || left[0] != "middle" || left[1] != "new" || left[2] != "running.part" {
		t.Errorf("left: %v", left)
	}
}

// A worker that runs for months brings its cache down to size again and again, but keeps what an attempt may still use.
func TestTheCacheIsTidiedWhileAWorkerRuns(t *testing.T) {
	c, err := openCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		for name, age := range map[string]time.Duration{"newest": time.Minute, "in use": 150 * time.Minute, "over": 6 * time.Hour} {
			path := filepath.Join(c.dir, name)
			used := time.Now().Add(-age)
			if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, cacheSize), os.Chtimes(path, used, used)); err != nil {
				t.Fatal(err)
			}
		}
		a := &Agent{hold: c, o: Options{Limits: Limits{Setup: time.Hour, Deadline: 3 * time.Hour}}}
		ctx, stop := context.WithCancel(t.Context())
		var tidying sync.WaitGroup
		tidying.Go(func() { a.tidy(ctx) })
		left := func() string {
			synctest.Wait()
			entries, _ := os.ReadDir(c.dir)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name())
			}
			return strings.Join(names, ", ")
		}
		time.Sleep(cacheEvery - time.Minute)
		if got := left(); got != "in use, newest, over" {
			t.Errorf("before the first look: %s", got)
		}
		time.Sleep(2 * time.Minute)
		if got := left(); got != "in use, newest" {
			t.Errorf("after an hour: %s", got)
		}
		time.Sleep(cacheEvery)
		if got := left(); got != "newest" {
			t.Errorf("after two hours: %s", got)
		}
		stop()
		tidying.Wait()
	})
}

// A build that was damaged on this disk is nobody's bad build: it is removed, and downloaded again.
func TestABuildDamagedInTheCacheIsDownloadedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "build.apk")
	if err := os.WriteFile(path, []byte("half of it"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := &Agent{builds: map[string]build.Info{}}
	_, err := a.parse(qgjob.Job{BuildSHA256: strings.Repeat("ab", 32)}, path)
	if device.CauseOf(err) != qgjob.CauseHostFailed {
		t.Errorf("refused as %s: %v", device.CauseOf(err), err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}
