package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/appwright"
	"qgjob/internal/report"
)

// htmlParts are what Playwright's HTML report is made of. A directory with anything else is somebody's own.
var htmlParts = []string{"index.html", "data", "trace"}

// htmlScratch begins the name of the directory, in that of the report, where the report is made.
const htmlScratch = ".qgjob-"

// htmlReport is Playwright's own HTML report over all jobs of a run.
type htmlReport struct {
	dir     string // --report; "" for none
	project string // directory of the test project, whose Playwright makes it
}

// parse checks before anything runs that the report can be made: that the directory is free, and that the project has
// its Playwright. An empty project is the current directory.
func (h *htmlReport) parse(project string) (err error) {
	if h.dir == "" {
		return nil
	}
	if h.project, err = filepath.Abs(project); err != nil {
		return err
	}
	if err := h.checkDir(); err != nil {
		return exitf(exitUsage, "--report: %v", err)
	}
	if err := appwright.CanMerge(h.project); err != nil {
		return exitf(exitUsage, "--report: %v", err)
	}
	return nil
}

// checkDir refuses a directory that holds anything but an earlier report.
func (h *htmlReport) checkDir() error {
	entries, err := os.ReadDir(h.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); !slices.Contains(htmlParts, name) && !strings.HasPrefix(name, htmlScratch) {
			return fmt.Errorf("%s holds %s, which is no part of a report: name a new directory, or one with an earlier report", h.dir, name)
		}
	}
	return err
}

// write makes the report of the blobs that the last attempts of the jobs left, in place of an earlier one. It returns
// the jobs that have none, with the reason.
func (h *htmlReport) write(ctx context.Context, conn *connection, full *report.Report) (missing []string, err error) {
	if err := h.checkDir(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(h.dir, 0o755); err != nil {
		return nil, err
	}
	scratch, err := os.MkdirTemp(h.dir, htmlScratch)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if scratch, err = filepath.Abs(scratch); err != nil {
		return nil, err
	}
	var blobs []string
	client := conn.client(resultTime)
	for i, j := range full.Jobs {
		blob := filepath.Join(scratch, fmt.Sprintf("%d-%s.zip", i, j.ID))
		why, err := downloadBlob(ctx, client, j, blob)
		switch {
		case err != nil:
			return nil, fmt.Errorf("the blob report of %s: %w", jobName(j.Job), err)
		case why != "":
			missing = append(missing, fmt.Sprintf("%s (job %s, %s): %s", jobName(j.Job), j.ID, j.State, why))
		default:
			blobs = append(blobs, blob)
		}
	}
	if len(blobs) == 0 {
		return missing, errors.New("no job has left a blob report to make the HTML report of")
	}
	made := filepath.Join(scratch, "report")
	if err := appwright.Merge(ctx, h.project, blobs, made); err != nil {
		return missing, err
	}
	return missing, h.replace(made)
}

// replace puts a report in the place of an earlier one.
func (h *htmlReport) replace(made string) error {
	for _, name := range htmlParts {
		if err := os.RemoveAll(filepath.Join(h.dir, name)); err != nil {
			return err
		}
	}
	parts, err := os.ReadDir(made)
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err := os.Rename(filepath.Join(made, part.Name()), filepath.Join(h.dir, part.Name())); err != nil {
			return err
		}
	}
	return nil
}

// downloadBlob downloads the blob report of a job's last attempt, or says why there is none.
func downloadBlob(ctx context.Context, client *api.Client, j report.Job, path string) (why string, err error) {
	if len(j.AttemptList) == 0 {
		return "it was never tried", nil
	}
	last := j.AttemptList[len(j.AttemptList)-1].Number
	list, err := client.Artifacts(ctx, j.ID)
	if err != nil {
		return "", err
	}
	at := slices.IndexFunc(list.Artifacts, func(a qgjob.Artifact) bool {
		return a.Attempt == last && a.Name == qgjob.ArtifactBlobReport
	})
	if at < 0 {
		return fmt.Sprintf("attempt %d left none, or it is not kept any more", last), nil
	}
	body, err := client.Artifact(ctx, list.Artifacts[at])
	if err != nil {
		return "", err
	}
	if err := save(path, list.Artifacts[at].SHA256, body); err != nil {
		return "", err
	}
	if err := appwright.CheckBlob(path); err != nil {
		return fmt.Sprintf("that of attempt %d is damaged: %v", last, err), nil
	}
	return "", nil
}
