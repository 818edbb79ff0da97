package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"

	"qgjob"
)

// File is a file to be uploaded. Open yields its bytes from the start, once for each try.
type File struct {
	SHA256 string
	Size   int64
	Open   func() (io.ReadCloser, error)
}

// HasBundle says whether the organization has a bundle.
func (c *Client) HasBundle(ctx context.Context, org, sha256 string) (bool, error) {
	return c.has(ctx, "/v1/bundles/"+escape(sha256), url.Values{"org_id": {org}})
}

// UploadBundle uploads a bundle that the organization does not have yet. It does not ask first.
func (c *Client) UploadBundle(ctx context.Context, org string, f File) (BlobStored, error) {
	return c.upload(ctx, "/v1/bundles/"+escape(f.SHA256), url.Values{"org_id": {org}}, f)
}

// Bundle opens a bundle for reading. The caller closes it, and verifies its SHA-256. A worker's token needs the lease's of an
// attempt that runs it; others leave it empty.
func (c *Client) Bundle(ctx context.Context, org, sha256, leaseToken string) (io.ReadCloser, error) {
	return c.download(ctx, "/v1/bundles/"+escape(sha256), url.Values{"org_id": {org}}, leaseToken)
}

// HasBuild says whether the app version has a build.
func (c *Client) HasBuild(ctx context.Context, org, appVersion, sha256 string) (bool, error) {
	return c.has(ctx, "/v1/builds/"+escape(sha256), url.Values{"org_id": {org}, "app_version_id": {appVersion}})
}

// UploadBuild uploads a build of an app version. It does not ask first whether it is there.
func (c *Client) UploadBuild(ctx context.Context, org, appVersion string, f File) (BlobStored, error) {
	return c.upload(ctx, "/v1/builds/"+escape(f.SHA256), url.Values{"org_id": {org}, "app_version_id": {appVersion}}, f)
}

// Builds returns the builds of an app version, newest first.
func (c *Client) Builds(ctx context.Context, org, appVersion string) (BuildList, error) {
	var builds BuildList
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/builds", query: url.Values{"org_id": {org}, "app_version_id": {appVersion}}}, &builds)
	return builds, err
}

// Build opens a build for reading, as Bundle does a bundle.
func (c *Client) Build(ctx context.Context, org, appVersion, sha256, leaseToken string) (io.ReadCloser, error) {
	return c.download(ctx, "/v1/builds/"+escape(sha256), url.Values{"org_id": {org}, "app_version_id": {appVersion}}, leaseToken)
}

// EnsureBundle uploads a bundle unless the organization has it. uploaded says whether it had to.
func (c *Client) EnsureBundle(ctx context.Context, org string, f File) (uploaded bool, err error) {
	if has, err := c.HasBundle(ctx, org, f.SHA256); has || err != nil {
		return false, err
	}
	_, err = c.UploadBundle(ctx, org, f)
	return err == nil, err
}

// EnsureBuild uploads a build unless the app version has it. uploaded says whether it had to.
func (c *Client) EnsureBuild(ctx context.Context, org, appVersion string, f File) (uploaded bool, err error) {
	if has, err := c.HasBuild(ctx, org, appVersion, f.SHA256); has || err != nil {
		return false, err
	}
	_, err = c.UploadBuild(ctx, org, appVersion, f)
	return err == nil, err
}

func (c *Client) has(ctx context.Context, path string, query url.Values) (bool, error) {
	err := c.call(ctx, request{method: http.MethodHead, path: path, query: query}, nil)
	if qgjob.ErrorCode(err) == qgjob.CodeNotFound {
		return false, nil
	}
	return err == nil, err
}

func (c *Client) upload(ctx context.Context, path string, query url.Values, f File) (BlobStored, error) {
	var stored BlobStored
	err := c.call(ctx, request{method: http.MethodPut, path: path, query: query, open: f.Open, size: f.Size, noLimit: true}, &stored)
	return stored, err
}

func bytesOpener(data []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
}
