package api

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"qgjob"
)

// impatient makes transfers that stand still end soon.
func impatient(t *testing.T) {
	usual := transferSilence
	transferSilence = 100 * time.Millisecond
	t.Cleanup(func() { transferSilence = usual })
}

// stop says after how many bytes an answer breaks off, or stands still.
type stop struct {
	after int
	still bool
}

// serving is a client of a server of one file, whose first answers stop at will.
func serving(t *testing.T, file []byte, stops []stop, wrap func(http.Handler) http.Handler) (c *Client, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	whole := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get("Range"))
		if r.Header.Get(LeaseTokenHeader) != "lease" {
			t.Errorf("asked with lease token %q", r.Header.Get(LeaseTokenHeader))
		}
		if n := len(*asked); n <= len(stops) {
			w = &stopping{ResponseWriter: w, stop: stops[n-1], r: r}
		}
		w.Header().Set("ETag", `"sum"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(file))
	}))
	if wrap != nil {
		whole = wrap(whole)
	}
	srv := httptest.NewServer(whole)
	t.Cleanup(srv.Close)
	c = &Client{BaseURL: srv.URL, HTTP: NewHTTP()}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	return c, asked
}

type stopping struct {
	http.ResponseWriter
	stop
	r *http.Request
}

func (s *stopping) Write(p []byte) (int, error) {
	if len(p) <= s.after {
		s.after -= len(p)
		return s.ResponseWriter.Write(p)
	}
	_, _ = s.ResponseWriter.Write(p[:s.after])
	_ = http.NewResponseController(s.ResponseWriter).Flush()
	if s.still {
		<-s.r.Context().Done()
	}
	panic(http.ErrAbortHandler)
}

func read(t *testing.T, c *Client) ([]byte, error) {
	t.Helper()
	body, err := c.Build(t.Context(), "acme", "v1", "sum", "lease")
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	return io.ReadAll(body)
}

// A download whose connection breaks off, or stands still, goes on where it was.
func TestADownloadGoesOnWhereItBrokeOff(t *testing.T) {
	impatient(t)
	file := bytes.Repeat([]byte("0123456789"), 100_000)
	c, asked := serving(t, file, []stop{{300_000, false}, {300_000, true}, {100_000, false}}, nil)
	got, err := read(t, c)
	if err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
	if want := "[ bytes=300000- bytes=600000- bytes=700000-]"; fmt.Sprint(*asked) != want {
		t.Errorf("asked for %v, want %s", *asked, want)
	}
}

// It does so through something that knows of no ranges, too.
func TestADownloadGoesOnWithoutRanges(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789"), 100_000)
	c, _ := serving(t, file, []stop{{300_000, false}}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			h.ServeHTTP(w, r)
		})
	})
	if got, err := read(t, c); err != nil || !bytes.Equal(got, file) {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
}

// Of two files that follow each other under one name no part is mixed with one of the other.
func TestADownloadOfAFileThatWasReplaced(t *testing.T) {
	file := bytes.Repeat([]byte("0123456789"), 100_000)
	var requests atomic.Int32
	c, _ := serving(t, file, []stop{{300_000, false}}, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) == 1 {
				h.ServeHTTP(w, r)
				return
			}
			w.Header().Set("ETag", `"other"`)
			http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat("x", len(file))))
		})
	})
	if got, err := read(t, c); qgjob.ErrorCode(err) != qgjob.CodeConflict || len(got) > 300_000 {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
}

// A server that never sends another byte is not waited for for ever.
func TestADownloadThatStandsStillEnds(t *testing.T) {
	impatient(t)
	file := bytes.Repeat([]byte("0123456789"), 100_000)
	stops := slices.Repeat([]stop{{0, true}}, 100)
	stops[0].after = 300_000
	c, asked := serving(t, file, stops, nil)
	c.Patience = 50 * time.Millisecond
	if got, err := read(t, c); qgjob.ErrorCode(err) != qgjob.CodeUnavailable || !strings.Contains(err.Error(), "stood still") {
		t.Errorf("%d bytes arrived by %d requests, %v", len(got), len(*asked), err)
	}
}

// An upload that its server does not take is given up.
func TestAnUploadThatStandsStillEnds(t *testing.T) {
	impatient(t)
	over := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyN(io.Discard, r.Body, 1000)
		<-over
	}))
	t.Cleanup(srv.Close)
	defer close(over)
	c := &Client{BaseURL: srv.URL, HTTP: NewHTTP(), Patience: -1}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	big := make([]byte, 64<<20)
	file := File{SHA256: "s", Size: int64(len(big)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(big)), nil }}
	if _, err := c.UploadBuild(context.Background(), "acme", "v1", file); qgjob.ErrorCode(err) != qgjob.CodeUnavailable || !strings.Contains(err.Error(), "stood still") {
		t.Errorf("the upload ended with %v", err)
	}
}
