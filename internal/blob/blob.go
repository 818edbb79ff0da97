// Package blob keeps the files that travel with jobs: bundles (the test project), builds (the app under test) and
// artifacts (what an attempt left). A file is known by its organization, its kind and the SHA-256 of its bytes; a file that is there is
// whole and has that hash, whatever was killed while it was written.
//
// Dir is the directory implementation. It knows nothing of HTTP or of the database: who may read what is
// the server's to decide.
package blob

import (
	"time"

	"qgjob"
)

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
}

// check refuses a key that names nothing that could be stored.
func (k Key) check() error {
	if k.Kind != Bundle && k.Kind != Build && k.Kind != Artifact {
		return qgjob.Errorf(qgjob.CodeInternal, "blob kind %q is unknown", k.Kind)
	}
	if err := qgjob.CheckID("org_id", k.OrgID); err != nil {
		return err
	}
	return qgjob.CheckSHA256("sha256", k.SHA256)
}

// Info describes a stored file.
type Info struct {
	Size     int64
	StoredAt time.Time
}
