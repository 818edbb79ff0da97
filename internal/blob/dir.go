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
	"time"
)

// staleAfter is how old an unfinished file must be before OpenDir takes it for one of a dead process.
// Several servers may share a directory, so that a young one can be another's upload.
const staleAfter = 24 * time.Hour

// Dir stores files in a directory. All methods may be called concurrently, also by several processes that
// share the directory.
//
//	<root>/tmp/…                                       unfinished uploads
//	<root>/<kind>s/<SHA-256 of the org id>/ab/abcdef…  whole files, -<copy> after the name of those that have one
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
	if err := sweep(d.tmp()); err != nil {
		return nil, fmt.Errorf("blob directory %s: %w", root, err)
	}
	return d, nil
}

// sweep removes uploads that processes that died long ago left unfinished.
func sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < staleAfter {
			continue // gone already, or somebody's upload
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Put implements Store. When it returns without error the file survives a power cut.
func (d *Dir) Put(ctx context.Context, k Key, r io.Reader, limit int64, check func(path string) error) (Info, error) {
	f, _, err := receive(ctx, d.tmp(), k, r, limit, check)
	if err != nil {
		return Info{}, err
	}
	defer discard(f)
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

// Open implements Store.
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

// Stat implements Store.
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

// Remove implements Store.
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
	return filepath.Join(d.root, string(k.Kind)+"s", hex.EncodeToString(org[:]), k.SHA256[:2], k.name())
}

func missing(k Key, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return notThere(k)
	}
	return storageError(err)
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
