package server

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
)

// transferSilence is how long an upload may stand still before it is given up.
const transferSilence = 30 * time.Second

// upstream is the body of an upload, not read yet.
type upstream struct {
	body   io.Reader
	length int64 // -1 when unknown
}

// Resolve is how huma hands the request's body to an operation that streams it.
func (u *upstream) Resolve(hc huma.Context) []error {
	r, w := humago.Unwrap(hc)
	u.body, u.length = &patientReader{r: r.Body, ctrl: http.NewResponseController(w)}, r.ContentLength
	return nil
}

// fits refuses a body that says beforehand that it is too large.
func (u *upstream) fits(what string, limit int64) error {
	if u.length > limit {
		return qgjob.Errorf(qgjob.CodeTooLarge, "the %s has %d bytes: at most %d are allowed", what, u.length, limit)
	}
	return nil
}

// patientReader gives up a body that stands still, however long it takes as a whole.
type patientReader struct {
	r    io.Reader
	ctrl *http.ResponseController
}

func (p *patientReader) Read(b []byte) (int, error) {
	if err := p.ctrl.SetReadDeadline(time.Now().Add(transferSilence)); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	if err != nil {
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			return n, qgjob.Errorf(qgjob.CodeUnavailable, "the upload stood still for %v: send it again: %w", transferSilence, err)
		}
		if err := p.ctrl.SetReadDeadline(time.Time{}); err != nil {
			return n, err
		}
	}
	return n, err
}

type bundleInput struct {
	SHA256 string `path:"sha256" doc:"SHA-256 of the file in lower-case hexadecimal"`
	OrgID  string `query:"org_id" required:"true" doc:"organization"`
}

// fileKey is the key of a file that a request names, when whoever makes the request may use it.
func fileKey(ctx context.Context, org string, kind blob.Kind, sha256 string) (blob.Key, error) {
	if err := principalOf(ctx).mayUse(org); err != nil {
		return blob.Key{}, err
	}
	return blob.Key{OrgID: org, Kind: kind, SHA256: sha256}, qgjob.CheckSHA256("sha256", sha256)
}

// mayRead refuses a worker a file that the job of its lease does not need, whether the file is there or not.
func (s *Server) mayRead(ctx context.Context, key blob.Key, leaseToken string) error {
	if !principalOf(ctx).Worker {
		return nil
	}
	needed, err := s.store.NeedsFile(ctx, leaseToken, key.OrgID, key.SHA256)
	if err == nil && !needed {
		err = qgjob.Errorf(qgjob.CodeLeaseLost, "a worker reads the files of the jobs that it has: no lease on one with %s of organization %s came with the request, or it ended", key.SHA256, key.OrgID)
	}
	return err
}

type fileOutput struct {
	ContentType string `header:"Content-Type" hidden:"true"`
	Length      int64  `header:"Content-Length" doc:"in bytes"`
}

type storedOutput struct {
	Body api.BlobStored
}

func (s *Server) hasBundle(ctx context.Context, in *bundleInput) (*fileOutput, error) {
	key, err := fileKey(ctx, in.OrgID, blob.Bundle, in.SHA256)
	if err != nil {
		return nil, err
	}
	return s.statFile(ctx, key)
}

type readBundleInput struct {
	SHA256 string `path:"sha256" doc:"SHA-256 of the file in lower-case hexadecimal"`
	OrgID  string `query:"org_id" required:"true" doc:"organization"`
	Token  string `header:"Qgjob-Lease-Token" maxLength:"128" doc:"of a lease on a job with this bundle: a worker's token needs it"`
}

func (s *Server) bundleFile(ctx context.Context, in *readBundleInput) (*streamOutput, error) {
	key, err := fileKey(ctx, in.OrgID, blob.Bundle, in.SHA256)
	if err != nil {
		return nil, err
	}
	if err := s.mayRead(ctx, key, in.Token); err != nil {
		return nil, err
	}
	return s.sendFile(ctx, key)
}

type uploadBundleInput struct {
	SHA256 string `path:"sha256" doc:"SHA-256 of the file in lower-case hexadecimal"`
	OrgID  string `query:"org_id" required:"true" doc:"organization"`
	upstream
}

func (s *Server) uploadBundle(ctx context.Context, in *uploadBundleInput) (*storedOutput, error) {
	key, err := fileKey(ctx, in.OrgID, blob.Bundle, in.SHA256)
	if err != nil {
		return nil, err
	}
	if err := in.fits("bundle", api.MaxBundleSize); err != nil {
		return nil, err
	}
	info, err := s.blobs.Put(ctx, key, in.body, api.MaxBundleSize, nil)
	if err != nil {
		return nil, err
	}
	return &storedOutput{Body: api.BlobStored{SHA256: key.SHA256, Size: info.Size}}, nil
}

func (s *Server) statFile(ctx context.Context, key blob.Key) (*fileOutput, error) {
	info, err := s.blobs.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	return &fileOutput{ContentType: "application/octet-stream", Length: info.Size}, nil
}

func (s *Server) sendFile(ctx context.Context, key blob.Key) (*streamOutput, error) {
	file, info, err := s.blobs.Open(ctx, key)
	if err != nil {
		return nil, err
	}
	return &streamOutput{Body: func(hc huma.Context) {
		defer func() { _ = file.Close() }() // opened for reading
		r, w := humago.Unwrap(hc)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"`+key.SHA256+`"`)
		http.ServeContent(w, r, "", info.StoredAt, file)
	}}, nil
}
