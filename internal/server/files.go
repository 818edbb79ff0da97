package server

import (
	"context"
	"errors"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/blob"
	"qgjob/internal/store"
)

// Bounds of a transfer, so that nobody keeps a connection and its file open for ever. Tests have less time.
var (
	transferSilence = 30 * time.Second // in which something must move
	transferWindow  = time.Minute      // in which an upload must bring
	transferLeast   = int64(64 << 10)  // so many bytes
)

// transferPiece is what a download sends at a time.
const transferPiece = 256 << 10

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

// patientReader gives up a body that stands still, or trickles, however long it takes as a whole.
type patientReader struct {
	r    io.Reader
	ctrl *http.ResponseController

	since time.Time // begin of a window
	moved int64     // in the window
}

func (p *patientReader) Read(b []byte) (int, error) {
	switch now := time.Now(); {
	case p.since.IsZero(), now.Sub(p.since) > transferWindow && p.moved >= transferLeast:
		p.since, p.moved = now, 0
	case now.Sub(p.since) > transferWindow:
		return 0, qgjob.Errorf(qgjob.CodeUnavailable, "the upload brought %d bytes in %v, and must bring %d: send it again over a faster connection", p.moved, transferWindow, transferLeast)
	}
	if err := p.ctrl.SetReadDeadline(time.Now().Add(transferSilence)); err != nil {
		return 0, err
	}
	n, err := p.r.Read(b)
	p.moved += int64(n)
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
	return s.hasUpload(ctx, key)
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
	return s.sendUpload(ctx, key)
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
	up, key, err := s.beginUpload(ctx, key)
	if err != nil {
		return nil, err
	}
	info, err := s.blobs.Put(ctx, key, in.body, api.MaxBundleSize, nil)
	if err != nil {
		return nil, err
	}
	if err := s.store.AddBundle(ctx, up); err != nil {
		return nil, err
	}
	return &storedOutput{Body: api.BlobStored{SHA256: key.SHA256, Size: info.Size}}, nil
}

// beginUpload makes a file known that is about to come, and returns the key to store it under.
func (s *Server) beginUpload(ctx context.Context, key blob.Key) (store.Upload, blob.Key, error) {
	up, err := s.store.BeginUpload(ctx, key.OrgID, string(key.Kind), key.SHA256)
	return up, uploadKey(up), err
}

// uploadKey is where the file of an upload is.
func uploadKey(up store.Upload) blob.Key {
	return blob.Key{OrgID: up.OrgID, Kind: blob.Kind(up.Kind), SHA256: up.SHA256, Copy: up.Copy}
}

// hasUpload describes an upload's file to a client that may be about to name it, which is why it counts as used.
func (s *Server) hasUpload(ctx context.Context, key blob.Key) (*fileOutput, error) {
	up, err := s.store.UseUpload(ctx, key.OrgID, string(key.Kind), key.SHA256)
	if err != nil {
		return nil, err
	}
	info, err := s.blobs.Stat(ctx, uploadKey(up))
	if err != nil {
		return nil, err
	}
	return &fileOutput{ContentType: "application/octet-stream", Length: info.Size}, nil
}

// uploaded returns where the file of an upload is that has come.
func (s *Server) uploaded(ctx context.Context, key blob.Key) (blob.Key, error) {
	up, err := s.store.Upload(ctx, key.OrgID, string(key.Kind), key.SHA256)
	return uploadKey(up), err
}

func (s *Server) sendUpload(ctx context.Context, key blob.Key) (*streamOutput, error) {
	key, err := s.uploaded(ctx, key)
	if err != nil {
		return nil, err
	}
	return s.sendFile(ctx, key)
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
		serveFile(w, r, info.StoredAt, file)
	}}, nil
}

// serveFile sends what a request asks for of a file, for as long as its client takes it.
func serveFile(w http.ResponseWriter, r *http.Request, storedAt time.Time, file io.ReadSeeker) {
	http.ServeContent(&patientWriter{w, http.NewResponseController(w)}, r, "", storedAt, file)
}

// patientWriter gives up a client that takes nothing of a download any more, however long it takes as a whole.
type patientWriter struct {
	http.ResponseWriter
	ctrl *http.ResponseController
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.ctrl.SetWriteDeadline(time.Now().Add(transferSilence)); err != nil {
		return 0, err
	}
	return p.ResponseWriter.Write(b)
}

// ReadFrom keeps sendfile, which knows of one limit to what it reads.
func (p *patientWriter) ReadFrom(r io.Reader) (sent int64, err error) {
	limited, ok := r.(*io.LimitedReader)
	if !ok {
		limited = &io.LimitedReader{R: r, N: math.MaxInt64}
	}
	for limited.N > 0 {
		if err := p.ctrl.SetWriteDeadline(time.Now().Add(transferSilence)); err != nil {
			return sent, err
		}
		n, err := io.CopyN(p.ResponseWriter, limited.R, min(limited.N, transferPiece))
		sent += n
		limited.N -= n
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}
