// Package blob keeps the files that travel with jobs: bundles (the test project), builds (the app under test) and
// artifacts (what an attempt left). A file is known by its organization, its kind and the SHA-256 of its bytes; a file that is there is
// whole and has that hash, whatever was killed while it was written.
//
// Dir keeps them in a directory, S3 in a bucket; both pass one suite. The package knows nothing of the server's HTTP or of the
// database: who may read what is the server's to decide.
package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"qgjob"
	"qgjob/internal/disk"
)

// Store keeps files. All methods may be called concurrently.
type Store interface {
	// Put stores what r yields under the key. It is idempotent, and may be repeated. It refuses, and stores nothing of, bytes
	// whose SHA-256 is not the key's (CodeInvalid), more than limit bytes (CodeTooLarge), and a file to which check
	// says no; check is given the path of the whole, verified file before it gets its name, and may be nil.
	Put(ctx context.Context, k Key, r io.Reader, limit int64, check func(path string) error) (Info, error)

	// Open opens a stored file for reading. The caller closes it. One that is not there is CodeNotFound.
	Open(ctx context.Context, k Key) (io.ReadSeekCloser, Info, error)

	// Stat describes a stored file. One that is not there is CodeNotFound.
	Stat(ctx context.Context, k Key) (Info, error)

	// Remove removes a file that was stored, for the last time, before a moment. One that is not there, or is
	// younger, is no error: somebody may be about to name it.
	Remove(ctx context.Context, k Key, before time.Time) error
}

// Kind is what a file is.
type Kind string

// The kinds.
const (
	Bundle   Kind = "bundle"
	Build    Kind = "build"
	Artifact Kind = "artifact"
)

// Key names a file. Files of one organization cannot be reached with the key of another.
type Key struct {
	OrgID  string
	Kind   Kind
	SHA256 string
	Copy   string // tells a file from another one of the same bytes: small letters, digits and dashes, or empty
}

// name is the last part of where a file is.
func (k Key) name() string {
	if k.Copy == "" {
		return k.SHA256
	}
	return k.SHA256 + "-" + k.Copy
}

// check refuses a key that names nothing that could be stored.
func (k Key) check() error {
	if k.Kind != Bundle && k.Kind != Build && k.Kind != Artifact {
		return qgjob.Errorf(qgjob.CodeInternal, "blob kind %q is unknown", k.Kind)
	}
	if err := qgjob.CheckID("org_id", k.OrgID); err != nil {
		return err
	}
	if strings.ContainsFunc(k.Copy, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
		return qgjob.Errorf(qgjob.CodeInternal, "blob copy %q is no name", k.Copy)
	}
	return qgjob.CheckSHA256("sha256", k.SHA256)
}

// Info describes a stored file.
type Info struct {
	Size     int64
	StoredAt time.Time
}

// reserve is what uploads leave free of a disk, on which the database may be, too.
const reserve = 512 << 20

var freeSpace = disk.Free // tests have fuller disks

// receive writes what r yields into a new file of a directory and verifies it, as Put promises. The caller discards it.
func receive(ctx context.Context, dir string, k Key, r io.Reader, limit int64, check func(path string) error) (_ *os.File, size int64, err error) {
	if err := k.check(); err != nil {
		return nil, 0, err
	}
	if free, err := freeSpace(dir); err == nil && free < reserve {
		return nil, 0, qgjob.Errorf(qgjob.CodeUnavailable, "the server's disk has %d MiB left, and takes no file below %d: free some space in its data directory and try again", free>>20, int64(reserve>>20))
	}
	f, err := os.CreateTemp(dir, "put-*")
	if err != nil {
		return nil, 0, storageError(err)
	}
	defer func() {
		if err != nil {
			discard(f)
		}
	}()
	hash := sha256.New()
	size, err = io.Copy(f, io.TeeReader(io.LimitReader(&contextReader{ctx, r}, limit+1), hash))
	if err != nil {
		return nil, 0, storageError(err)
	}
	if size > limit {
		return nil, 0, qgjob.Errorf(qgjob.CodeTooLarge, "the %s is larger than %d bytes, which is the limit: nothing was stored", k.Kind, limit)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != k.SHA256 {
		return nil, 0, qgjob.Errorf(qgjob.CodeInvalid, "the %d bytes received have SHA-256 %s, not %s: nothing was stored; send the file again", size, sum, k.SHA256)
	}
	if check != nil {
		if err := check(f.Name()); err != nil {
			return nil, 0, err
		}
	}
	return f, size, nil
}

// discard ends a file that receive made.
func discard(f *os.File) {
	_ = f.Close()           // closed before already where it matters
	_ = os.Remove(f.Name()) // renamed away where it is kept
}

func notThere(k Key) error {
	return qgjob.Errorf(qgjob.CodeNotFound, "organization %s has no %s %s: upload it first", k.OrgID, k.Kind, k.SHA256)
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
