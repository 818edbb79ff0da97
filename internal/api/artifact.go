package api

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"qgjob"
)

// AddArtifact adds a file to what an attempt leaves, or replaces the one of that name.
func (c *Client) AddArtifact(ctx context.Context, lease Lease, name string, f File) (BlobStored, error) {
	var stored BlobStored
	err := c.call(ctx, request{
		method: http.MethodPut, path: "/v1/attempts/" + escape(lease.AttemptID) + "/artifacts/" + escape(name),
		query:  url.Values{"sha256": {f.SHA256}},
		header: http.Header{LeaseTokenHeader: {lease.Token}},
		open:   f.Open, size: f.Size, noLimit: true,
	}, &stored)
	return stored, err
}

// Artifacts lists what the attempts of a job left.
func (c *Client) Artifacts(ctx context.Context, jobID string) (ArtifactList, error) {
	var l ArtifactList
	err := c.call(ctx, request{method: http.MethodGet, path: "/v1/jobs/" + escape(jobID) + "/artifacts"}, &l)
	return l, err
}

// Artifact opens an artifact for reading. The caller closes it, and verifies its SHA-256.
func (c *Client) Artifact(ctx context.Context, a qgjob.Artifact) (io.ReadCloser, error) {
	return c.download(ctx, "/v1/jobs/"+escape(a.JobID)+"/artifacts/"+strconv.Itoa(a.Attempt)+"/"+escape(a.Name), nil, "")
}
