package appwright

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"qgjob"
)

// mergeTimeout bounds a merge.
const mergeTimeout = 10 * time.Minute

// mergeConfig is the config of a merge. A directory of its own for the tests makes Playwright take blobs of workers
// that keep the test project in different places.
const mergeConfig = `module.exports = { testDir: __dirname, outputDir: __dirname + "/output" };
`

// CanMerge says whether [Merge] finds what it needs in a test project, with a [Failure] that says what to do.
func CanMerge(projectDir string) error {
	if _, _, err := installed(projectDir, "@playwright/test"); err != nil {
		return failuref(qgjob.CauseProjectInvalid, "the HTML report is made by the test project's own Playwright, and %s has no @playwright/test installed: run npm ci in the test project, or leave the report out", projectDir)
	}
	if _, err := exec.LookPath("node"); err != nil {
		return failuref(qgjob.CauseHostFailed, "the HTML report is made by the test project's own Playwright, which needs Node.js on this host: install Node 20 or later, or leave the report out")
	}
	return nil
}

// CheckBlob says what is wrong with a file that should be a blob report of Playwright's: a runner that was killed
// may have left half of one, with which no other can be merged.
func CheckBlob(path string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer z.Close()
	events := false
	for _, f := range z.File {
		if !filepath.IsLocal(f.Name) { // Playwright would write wherever it says
			return fmt.Errorf("it holds a file named %.100q", f.Name)
		}
		events = events || strings.HasSuffix(f.Name, ".jsonl")
	}
	if !events {
		return errors.New("it holds no events")
	}
	return nil
}

// Merge lets the Playwright of a test project make its HTML report of blob reports, in their order, in the directory
// out, which it makes or empties first. The blobs are moved.
func Merge(ctx context.Context, projectDir string, blobs []string, out string) error {
	if err := CanMerge(projectDir); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, mergeTimeout, fmt.Errorf("the reports were not merged within %s", mergeTimeout))
	defer cancel()
	tmp, err := os.MkdirTemp(filepath.Dir(blobs[0]), "merge-")
	if err != nil {
		return hostFailure("make a directory for the merge", err)
	}
	defer os.RemoveAll(tmp)
	in, config := filepath.Join(tmp, "blobs"), filepath.Join(tmp, "tests", "merge.config.cjs")
	errs := []error{os.Mkdir(in, 0o700), os.Mkdir(filepath.Dir(config), 0o700), os.WriteFile(config, []byte(mergeConfig), 0o600)}
	width := len(strconv.Itoa(len(blobs)))
	for i, blob := range blobs { // Playwright takes them by their names
		errs = append(errs, os.Rename(blob, filepath.Join(in, fmt.Sprintf("%0*d.zip", width, i))))
	}
	if err := errors.Join(errs...); err != nil {
		return hostFailure("gather the blob reports", err)
	}
	// The second name of the directory is the one before Playwright 1.45.
	env := []string{"PLAYWRIGHT_HTML_OUTPUT_DIR=" + out, "PLAYWRIGHT_HTML_REPORT=" + out}
	said, err := Project{Dir: projectDir}.playwright(ctx, tmp, env, "merge-reports", "--config", config, "--reporter", "html", in)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return failuref(qgjob.CauseProjectInvalid, "Playwright could not merge the reports: %s (%w)", firstLines(said, 20), err)
	}
	if _, err := os.Stat(filepath.Join(out, "index.html")); err != nil {
		return failuref(qgjob.CauseProjectInvalid, "Playwright merged the reports and left no index.html: %s", firstLines(said, 20))
	}
	return nil
}
