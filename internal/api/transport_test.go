package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"qgjob"
)

// A server that stores a large file in a bucket answers when the bucket has it: an upload waits for that, other
// requests do not.
func TestAnUploadWaitsUntilItsFileIsStored(t *testing.T) {
	tries := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		tries++
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(300 * time.Millisecond)
		_ = json.NewEncoder(w).Encode(BlobStored{SHA256: "s", Size: 3})
	}))
	t.Cleanup(srv.Close)
	c := &Client{BaseURL: srv.URL, HTTP: &http.Client{Transport: newTransport(30*time.Millisecond, time.Minute)}, Patience: -1}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	file := File{SHA256: "s", Size: 3, Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader([]byte("apk"))), nil }}
	if stored, err := c.UploadBuild(context.Background(), "acme", "v1", file); err != nil || stored.Size != 3 || tries != 1 {
		t.Errorf("after %d tries: %+v, %v", tries, stored, err)
	}
	if _, err := c.Build(context.Background(), "acme", "v1", "s", ""); qgjob.ErrorCode(err) != qgjob.CodeUnavailable {
		t.Errorf("a server that does not answer was waited for: %v", err)
	}
}
