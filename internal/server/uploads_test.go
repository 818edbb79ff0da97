package server_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // to look into PostgreSQL

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/phonesim"
	"qgjob/internal/server"
)

// onEachDatabase runs a test over a server of each kind of database, which it can look into.
func onEachDatabase(t *testing.T, test func(t *testing.T, r *running, db *sql.DB)) {
	t.Run("sqlite", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "q.db")
		test(t, serve(t, openSQLite(t, path)), openDatabase(t, "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)"))
	})
	t.Run("postgresql", func(t *testing.T) {
		url := postgresURL(t)
		test(t, serve(t, openPostgres(t, url)), openDatabase(t, "pgx", url))
	})
}

func openDatabase(t *testing.T, driver, name string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func execute(t *testing.T, db *sql.DB, text string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), text); err != nil {
		t.Fatal(err)
	}
}

// TestUploadsThatNobodyUsesAreRemoved: from the disk, too; what needs them says so and what to do; what comes again is there again.
func TestUploadsThatNobodyUsesAreRemoved(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, r *running, db *sql.DB) {
		within := server.Retention{Unused: 30 * 24 * time.Hour}
		apk, err := phonesim.BuildAPK(phonesim.App{Package: "com.example.shop", VersionCode: 7, VersionName: "1.7"})
		if err != nil {
			t.Fatal(err)
		}
		bundle, build := fileOf("a project"), fileOf(string(apk))
		request := api.SubmitRequest{OrgID: "acme", AppVersionID: "v1", BundleSHA256: bundle.SHA256, BuildSHA256: build.SHA256, Jobs: []api.JobSpec{{TestPath: "a.spec.js"}}}
		upload := func(uploads bool) qgjob.Run {
			t.Helper()
			if uploaded, err := r.EnsureBuild(t.Context(), "acme", "v1", build); err != nil || uploaded != uploads {
				t.Fatalf("the build: uploaded %v, %v", uploaded, err)
			}
			if uploaded, err := r.EnsureBundle(t.Context(), "acme", bundle); err != nil || uploaded != uploads {
				t.Fatalf("the bundle: uploaded %v, %v", uploaded, err)
			}
			run, err := r.Submit(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			return run
		}
		files := func() int {
			found, _ := filepath.Glob(filepath.Join(r.files, "b*s", "*", "*", "*"))
			return len(found)
		}
		retain := func() {
			t.Helper()
			if err := r.server.Retain(t.Context(), within, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
		monthLater := func() {
			t.Helper()
			for _, column := range []string{"uploads set used_at_ms = used_at_ms", "runs set submitted_at_ms = submitted_at_ms", "lanes set oldest_at_ms = oldest_at_ms"} {
				execute(t, db, fmt.Sprintf("update %s - %d", column, (31*24*time.Hour).Milliseconds()))
			}
		}

		run := upload(true)
		if _, err := r.EnsureBuild(t.Context(), "acme", "v2", build); err != nil { // the same file
			t.Fatal(err)
		}
		monthLater()
		if retain(); files() != 2 { // its job waits
			t.Fatalf("%d files stay of what a job needs", files())
		}
		if _, err := r.CancelRun(t.Context(), run.ID); err != nil {
			t.Fatal(err)
		}
		monthLater()
		if retain(); files() != 0 {
			t.Fatalf("%d files stay that nobody needs", files())
		}
		if list, err := r.Builds(t.Context(), "acme", "v1"); err != nil || len(list.Builds) > 0 {
			t.Errorf("the app version still has %+v, %v", list, err)
		}
		if _, err := r.Bundle(t.Context(), "acme", bundle.SHA256, ""); qgjob.ErrorCode(err) != qgjob.CodeNotFound || !strings.Contains(err.Error(), "was removed") {
			t.Errorf("the download of what was removed: %v", err)
		}
		if _, err := r.Submit(t.Context(), request); qgjob.ErrorCode(err) != qgjob.CodeInvalid || !strings.Contains(err.Error(), "upload it first") {
			t.Errorf("the submit of what was removed: %v", err)
		}
		if _, err := r.RetryRun(t.Context(), run.ID, api.RetryRequest{}); qgjob.ErrorCode(err) != qgjob.CodeConflict || !strings.Contains(err.Error(), "submit the tests again with 'qgjob submit'") {
			t.Errorf("the retry of what was removed: %v", err)
		}

		upload(true)
		upload(false)
		if retain(); files() != 2 {
			t.Errorf("%d files are there of what came again", files())
		}
		body, err := r.Bundle(t.Context(), "acme", bundle.SHA256, "")
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if data, err := io.ReadAll(body); err != nil || string(data) != "a project" {
			t.Errorf("the bundle that came again: %q, %v", data, err)
		}
	})
}

// stuck is a store of files some of which cannot be removed.
type stuck struct {
	blob.Store
	removed int
}

func (s *stuck) Remove(ctx context.Context, k blob.Key, before time.Time) error {
	if strings.HasPrefix(k.SHA256, "bad") {
		return errors.New("it is stuck")
	}
	s.removed++
	return s.Store.Remove(ctx, k, before)
}

// TestFilesThatCannotBeRemovedHinderNoOthers: neither do files that have a name, nor a page of them.
func TestFilesThatCannotBeRemovedHinderNoOthers(t *testing.T) {
	onEachDatabase(t, func(t *testing.T, r *running, db *sql.DB) {
		files, err := blob.OpenDir(filepath.Join(t.TempDir(), "blobs"))
		if err != nil {
			t.Fatal(err)
		}
		blobs := &stuck{Store: files}
		var log bytes.Buffer
		s, err := server.New(server.Options{SecretKey: server.NewSecretKey(), Store: r.store, Blobs: blobs, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatal(err)
		}
		var unnamed, uploads, artifacts []string
		add := func(sha string, named bool) {
			n := len(unnamed)
			unnamed = append(unnamed, fmt.Sprintf("('acme', '%s', %d)", sha, n+1))
			uploads = append(uploads, fmt.Sprintf("('acme', 'bundle', '%s', '')", sha))
			if named {
				artifacts = append(artifacts, fmt.Sprintf("('%d', 'a', 'acme', 'j', 1, '%s', 1, 1)", n, sha))
			}
		}
		for i := range 600 {
			add(fmt.Sprintf("bad%061x", i), false)
		}
		for i := range 600 {
			add(fmt.Sprintf("%064x", i), i < 500)
		}
		execute(t, db, "insert into artifacts (attempt_id, name, org_id, job_id, number, sha256, size_bytes, added_at_ms) values "+strings.Join(artifacts, ", "))
		execute(t, db, "insert into unnamed_files (org_id, sha256, since_ms) values "+strings.Join(unnamed, ", "))
		execute(t, db, "insert into removed_uploads (org_id, kind, sha256, copy) values "+strings.Join(uploads, ", "))

		err = s.Retain(t.Context(), server.Retention{}, 0)
		if err == nil || strings.Count(err.Error(), "600 files could not be removed; the first:") != 2 || !strings.Contains(err.Error(), "it is stuck") {
			t.Errorf("the pass ended with %v", err)
		}
		if blobs.removed != 100+600 {
			t.Errorf("%d files were removed, want 100 of artifacts and 600 of uploads", blobs.removed)
		}
		if n := strings.Count(log.String(), "artifact bad"); n != 10 {
			t.Errorf("%d of the artifacts' files that are stuck are said in the log:\n%s", n, log.String())
		}
		for _, table := range []string{"unnamed_files", "removed_uploads"} {
			left := 0
			if err := db.QueryRowContext(t.Context(), "select count(*) from "+table).Scan(&left); err != nil || left != 600 {
				t.Errorf("%d of %s are left to be tried again: %v", left, table, err)
			}
		}
	})
}
