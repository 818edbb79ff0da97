package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/report"
)

// resultsMark is in the directory of a local run's results: git and submits pass over it, and a later run may
// replace what is there.
const (
	resultsMark     = ".gitignore"
	resultsMarkText = "# What the last qgjob run --local left: the next one replaces it.\n*\n"
)

// checkResults refuses a directory that holds anything but the results of an earlier run.
func checkResults(dir string) error {
	if dir == "" {
		return errors.New("name a directory")
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	mark, err := os.ReadFile(filepath.Join(dir, resultsMark))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if string(mark) != resultsMarkText {
		return fmt.Errorf("%s holds %s, which no qgjob run --local left: name a new directory, or one with an earlier run's results", dir, entries[0].Name())
	}
	return nil
}

// clearResults removes what an earlier run left.
func clearResults(dir string) error {
	if err := checkResults(dir); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.Name() != resultsMark { // last, so that it is ours until then
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err != nil || len(entries) == 0 {
		return err
	}
	return errors.Join(os.Remove(filepath.Join(dir, resultsMark)), os.Remove(dir))
}

// markResults makes the directory.
func markResults(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, resultsMark), []byte(resultsMarkText), 0o644)
}

// keep saves what the attempts left of each job that did not pass at once, and of those whose screen was to be
// recorded in any case, and says where it is. It takes the place of what an earlier run left.
func (l *localRun) keep(ctx context.Context, p *program, conn *connection, runID string) {
	ctx, cancel := context.WithTimeout(ctx, resultTime)
	defer cancel()
	if err := l.save(ctx, p, conn, runID); err != nil {
		fmt.Fprintf(p.stderr, "What the tests left cannot be kept in %s: %v\n", l.results, err)
	}
}

func (l *localRun) save(ctx context.Context, p *program, conn *connection, runID string) error {
	full, err := readReport(ctx, conn, runID, resultTime)
	if err == nil {
		err = clearResults(l.results)
	}
	if err != nil {
		return err
	}
	client, taken := conn.client(resultTime), map[string]bool{}
	for _, j := range full.Jobs {
		if len(j.AttemptList) == 0 || j.State == qgjob.Passed && j.Attempts == 1 && j.Video != qgjob.VideoOn {
			continue
		}
		name := fileName(j)
		for n := 2; taken[name]; n++ { // jobs of one name differ in what they require
			name = fmt.Sprintf("%s-%d", fileName(j), n)
		}
		if len(taken) == 0 {
			if err := markResults(l.results); err != nil {
				return err
			}
		}
		taken[name] = true
		dir := filepath.Join(l.results, name)
		if err := saveJob(ctx, client, j, dir); err != nil {
			return err
		}
		fmt.Fprintf(p.stderr, "Log and artifacts of %s: %s\n", jobName(j.Job), dir)
	}
	return nil
}

// fileName is a job's name as that of a directory.
func fileName(j report.Job) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		if strings.ContainsRune(`/\:*?"<>| ()[]`, r) {
			return '-'
		}
		return r
	}, jobName(j.Job)), "-.")
}

// saveJob saves the log and the artifacts of each attempt in a directory of its own.
func saveJob(ctx context.Context, client *api.Client, j report.Job, dir string) error {
	for _, a := range j.AttemptList {
		into := attemptDir(dir, a.Number)
		if err := os.MkdirAll(into, 0o755); err != nil {
			return err
		}
		err := writeFile(filepath.Join(into, "log.txt"), func(f io.Writer) error {
			plain := &plainWriter{out: f}
			copied := copyLog(a.Number, plain, func(attempt int, offset int64) (api.LogChunk, error) {
				return client.Log(ctx, j.ID, attempt, offset, 0)
			})
			return errors.Join(copied, plain.Close())
		})
		if err != nil {
			return fmt.Errorf("the log of attempt %d of %s: %w", a.Number, jobName(j.Job), err)
		}
	}
	list, err := client.Artifacts(ctx, j.ID)
	if err != nil {
		return err
	}
	for _, a := range list.Artifacts {
		if _, err := download(ctx, client, a, dir); err != nil {
			return err
		}
	}
	return nil
}
