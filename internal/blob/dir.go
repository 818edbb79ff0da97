package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"qgjob"
)

// staleAfter is how old an unfinished file must be before OpenDir takes it for one of a dead process.
// Several servers may share a directory, so that a young one can be another's upload.
const staleAfter = 24 * time.Hour

// Dir stores files in a directory. All methods may be called concurrently, also by several processes that
// share the directory.
//
//	<root>/tmp/…                                       unfinished uploads
//	<root>/<kind>s/<SHA-256 of the org id>/ab/abcdef…  whole files
//
// The organization's id is hashed so that ids that differ in case only stay apart on any file system.
type Dir struct {
	root string
}

// OpenDir opens the store in a directory, makes it if it is missing, and removes what processes that died
// long ago left unfinished.
func OpenDir(root string) (*Dir, error) {
	d := &Dir{root: root}
	if err := makeDir(d.tmp()); err != nil {
		return nil, fmt.Errorf("blob directory %s: %w", root, err)
	}
	entries, err := os.ReadDir(d.tmp())
	if err != nil {
		return nil, fmt.Errorf("blob directory %s: %w", root, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < staleAfter {
			continue // gone already, or somebody's upload
		}
		if err := os.Remove(filepath.Join(d.tmp(), e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("blob directory %s: %w", root, err)
		}
	}
	return d, nil
}

// Put stores what r yields under the key. It is idempotent. It refuses, and stores nothing of, bytes whose
// SHA-256 is not the key's (CodeInvalid), more than limit bytes (CodeTooLarge), and a file to which check
// says no; check is given the path of the whole, verified file before it gets its name, and may be nil.
// When Put returns without error the file survives a power cut.
func (d *Dir) Put(ctx context.Context, k Key, r io.Reader, limit int64, check func(path string) error) (Info, error) {
	if err := k.check(); err != nil {
		return Info{}, err
	}
	f, err := os.CreateTemp(d.tmp(), "put-*")
	if err != nil {
		return Info{}, storageError(err)
	}
	defer func() {
		_ = f.Close()           // closed before already where it matters
		_ = os.Remove(f.Name()) // renamed away on success
	}()

	hash := sha256.New()
	size, err := io.Copy(f, io.TeeReader(io.LimitReader(&contextReader{ctx, r}, limit+1), hash))
	if err != nil {
		return Info{}, storageError(err)
	}
	if size > limit {
		return Info{}, qgjob.Errorf(qgjob.CodeTooLarge, "the %s is larger than %d bytes, which is the limit: nothing was stored", k.Kind, limit)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != k.SHA256 {
		return Info{}, qgjob.Errorf(qgjob.CodeInvalid, "the %d bytes received have SHA-256 %s, not %s: nothing was stored; send the file again", size, sum, k.SHA256)
	}
	if check != nil {
		if err := check(f.Name()); err != nil {
			return Info{}, err
		}
	}
	if err := d.commit(f, k); err != nil {
		return Info{}, storageError(err)
	}
	return d.Stat(ctx, k)
}

// commit makes the finished temporary file durable under its final name.
func (d *Dir) commit(f *os.File, k Key) error {
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	path := d.path(k)
	if err := makeDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Open opens a stored file for reading. The caller closes it. One that is not there is CodeNotFound.
func (d *Dir) Open(_ context.Context, k Key) (io.ReadSeekCloser, Info, error) {
	if err := k.check(); err != nil {
		return nil, Info{}, err
	}
	f, err := os.Open(d.path(k))
	if err != nil {
		return nil, Info{}, missing(k, err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, Info{}, storageError(err)
	}
	return f, Info{Size: info.Size(), StoredAt: info.ModTime()}, nil
}

// Stat describes a stored file. One that is not there is CodeNotFound.
func (d *Dir) Stat(_ context.Context, k Key) (Info, error) {
	if err := k.check(); err != nil {
		return Info{}, err
	}
	info, err := os.Stat(d.path(k))
	if err != nil {
		return Info{}, missing(k, err)
	}
	return Info{Size: info.Size(), StoredAt: info.ModTime()}, nil
}

// Remove removes a file that was stored, for the last time, before a moment. One that is not there, or is
// younger, is no error: somebody may be about to name it.
func (d *Dir) Remove(_ context.Context, k Key, before time.Time) error {
	if err := k.check(); err != nil {
		return err
	}
	info, err := os.Stat(d.path(k))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.ModTime().Before(before) {
		return nil
	}
	if err == nil {
		err = os.Remove(d.path(k))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return storageError(err)
	}
	return nil
}

func (d *Dir) tmp() string { return filepath.Join(d.root, "tmp") }

func (d *Dir) path(k Key) string {
	org := sha256.Sum256([]byte(k.OrgID))
	return filepath.Join(d.root, string(k.Kind)+"s", hex.EncodeToString(org[:]), k.SHA256[:2], k.SHA256)
}

func missing(k Key, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return qgjob.Errorf(qgjob.CodeNotFound, "organization %s has no %s %s: upload it first", k.OrgID, k.Kind, k.SHA256)
	}
	return storageError(err)
}

// storageError gives errors of disk and transfer their code; those of the caller's reader keep theirs.
func storageError(err error) error {
	if _, ok := errors.AsType[*qgjob.Error](err); ok {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) {
		return qgjob.Errorf(qgjob.CodeUnavailable, "the server's disk is full: free space in its data directory and try again: %w", err)
	}
	return qgjob.Errorf(qgjob.CodeUnavailable, "the file could not be transferred or stored: try again: %w", err)
}

// makeDir makes a directory and its parents so that they survive a power cut.
func makeDir(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := makeDir(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// contextReader ends a copy when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
