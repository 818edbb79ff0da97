package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"qgjob/internal/blob"
	"qgjob/internal/store"
)

const (
	// retainEvery is how often it is looked for what is too old, or too much.
	retainEvery = 10 * time.Minute
	// retainRest is how young an artifact's file is left alone: an upload may be about to name it.
	retainRest = time.Hour
	// removalTime bounds the removal of files at a time: what is left of a blob store that does not answer waits for the next time.
	removalTime = retainEvery
)

// Retention bounds what is kept. Zero is no bound.
type Retention struct {
	Age    time.Duration // of artifacts
	Size   int64         // of artifacts, in bytes, of each organization
	Unused time.Duration // since somebody last used a bundle or a build
}

// retainLoop calls retain at the start and every few minutes until the context ends.
func retainLoop(ctx context.Context, log *slog.Logger, retain func(context.Context) error) {
	ticker := time.NewTicker(retainEvery)
	defer ticker.Stop()
	for {
		if err := retain(ctx); err != nil && ctx.Err() == nil {
			log.Error("some of what is not to be kept could not be removed: that is tried again", "in", retainEvery, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// retain forgets secrets, artifacts and uploads beyond the bounds, and removes the files of those, of artifacts after they had no name for as long as rest.
// What cannot be done hinders nothing of the others.
func (s *Server) retain(ctx context.Context, within Retention, rest time.Duration) error {
	errs := []error{
		s.store.ForgetSecrets(ctx, secretsKept),
		s.forgetArtifacts(ctx, within),
		s.forgetUploads(ctx, within.Unused),
	}
	ctx, cancel := context.WithTimeout(ctx, removalTime)
	defer cancel()
	return errors.Join(append(errs, s.removeUnnamed(ctx, rest), s.removeUploads(ctx))...)
}

func (s *Server) forgetArtifacts(ctx context.Context, within Retention) error {
	for more := within.Age > 0 || within.Size > 0; more; {
		var err error
		if more, err = s.store.ForgetArtifacts(ctx, within.Age, within.Size); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) forgetUploads(ctx context.Context, unused time.Duration) error {
	for more := unused > 0; more; {
		var forgotten []store.Upload
		var err error
		if forgotten, more, err = s.store.ForgetUploads(ctx, unused); err != nil {
			return err
		}
		if len(forgotten) > 0 {
			s.log.Info("bundles and builds that nobody used are removed", "unused for", unused, "files", len(forgotten))
		}
	}
	return nil
}

// removeUnnamed removes artifacts' files that have had no name for as long as rest.
func (s *Server) removeUnnamed(ctx context.Context, rest time.Duration) error {
	failed := failures{log: s.log}
	for next := (store.UnnamedFile{}); ; {
		files, after, err := s.store.UnnamedFiles(ctx, rest, next)
		if err != nil {
			return errors.Join(err, failed.err())
		}
		for _, f := range files {
			// A file is known from before its upload, and is younger by what that took: half of the rest is for it.
			err := s.remove(ctx, blob.Key{OrgID: f.OrgID, Kind: blob.Artifact, SHA256: f.SHA256}, time.Now().Add(-rest/2), &failed)
			if err == nil {
				failed.add(s.store.FileRemoved(ctx, f))
			}
		}
		if next = after; next == (store.UnnamedFile{}) || ctx.Err() != nil {
			return failed.err()
		}
	}
}

// removeUploads removes the files of uploads that were forgotten. Nobody comes back to them, however young they are.
func (s *Server) removeUploads(ctx context.Context) error {
	failed := failures{log: s.log}
	var next store.Upload
	for {
		list, err := s.store.RemovedUploads(ctx, next)
		if err != nil {
			return errors.Join(err, failed.err())
		}
		for _, up := range list {
			if s.remove(ctx, uploadKey(up), endOfTime, &failed) == nil {
				failed.add(s.store.UploadRemoved(ctx, up))
			}
		}
		if len(list) < store.UploadPage || ctx.Err() != nil {
			return failed.err()
		}
		next = list[len(list)-1]
	}
}

// endOfTime is later than any file was stored, whatever clock says when that was.
var endOfTime = time.Date(9999, time.January, 1, 0, 0, 0, 0, time.UTC)

// remove removes a file, or adds to the failures that it could not.
func (s *Server) remove(ctx context.Context, key blob.Key, before time.Time, failed *failures) error {
	err := s.blobs.Remove(ctx, key, before)
	if err != nil {
		failed.add(fmt.Errorf("%s %s of organization %s: %w", key.Kind, key.SHA256, key.OrgID, err))
	}
	return err
}

// failures are those of a pass that goes on in spite of them.
type failures struct {
	log   *slog.Logger
	count int
	first error
}

// failuresLogged is how many of a pass are said one by one.
const failuresLogged = 10

func (f *failures) add(err error) {
	if err == nil {
		return
	}
	if f.count++; f.first == nil {
		f.first = err
	}
	if f.count <= failuresLogged {
		f.log.Warn("a file that is not to be kept could not be removed", "error", err)
	}
}

func (f *failures) err() error {
	if f.count == 0 {
		return nil
	}
	return fmt.Errorf("%d files could not be removed; the first: %w", f.count, f.first)
}
