package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"qgjob"
	"qgjob/internal/blob"
)

func key(org string, kind blob.Kind, data string) blob.Key {
	sum := sha256.Sum256([]byte(data))
	return blob.Key{OrgID: org, Kind: kind, SHA256: hex.EncodeToString(sum[:])}
}

// opened is a store with what is really there.
type opened struct {
	blob.Store
	names func() []string // of everything that is stored, or left behind
}

func openDir(t *testing.T) (opened, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "blobs")
	d, err := blob.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return opened{d, func() []string { return files(t, root) }}, root
}

// openS3 opens a bucket of a server that speaks S3's protocol.
func openS3(t *testing.T) opened {
	t.Helper()
	backend := s3mem.New()
	server := httptest.NewServer(gofakes3.New(backend).Server())
	t.Cleanup(server.Close)
	if err := backend.CreateBucket("files"); err != nil {
		t.Fatal(err)
	}
	tmp := filepath.Join(t.TempDir(), "tmp")
	s, err := blob.OpenS3(t.Context(), "s3://files/qgjob?region=eu-central-1&endpoint="+server.URL, tmp)
	if err != nil {
		t.Fatal(err)
	}
	return opened{s, func() []string {
		list, err := backend.ListBucket("files", nil, gofakes3.ListBucketPage{})
		if err != nil {
			t.Fatal(err)
		}
		names := files(t, tmp)
		for _, c := range list.Contents {
			if !strings.HasPrefix(c.Key, "qgjob/") {
				t.Errorf("%s is outside of the prefix", c.Key)
			}
			names = append(names, c.Key)
		}
		return names
	}}
}

// everywhere runs a test on a directory and on a bucket.
func everywhere(t *testing.T, f func(t *testing.T, open func(t *testing.T) opened)) {
	t.Setenv("AWS_ACCESS_KEY_ID", "tester")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tester")
	t.Run("directory", func(t *testing.T) {
		f(t, func(t *testing.T) opened { d, _ := openDir(t); return d })
	})
	t.Run("S3", func(t *testing.T) { f(t, openS3) })
}

// files lists every file below root, so that a test can see what is really there.
func files(t *testing.T, root string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestStoresWhatItIsGiven(t *testing.T) {
	everywhere(t, func(t *testing.T, open func(*testing.T) opened) {
		d := open(t)
		k := key("acme", blob.Bundle, "hello")
		for range 2 { // idempotent
			info, err := d.Put(t.Context(), k, iotest.OneByteReader(strings.NewReader("hello")), 5, nil)
			if err != nil || info.Size != 5 {
				t.Fatalf("Put = %+v, %v", info, err)
			}
		}
		f, info, err := d.Open(t.Context(), k)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		got, err := io.ReadAll(f)
		if err != nil || string(got) != "hello" || info.Size != 5 {
			t.Fatalf("Open = %q, %+v, %v", got, info, err)
		}
		if _, err := f.Seek(-2, io.SeekEnd); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(f); err != nil || string(got) != "lo" {
			t.Fatalf("its end = %q, %v", got, err)
		}
	})
}

func TestKeepsOrganizationsAndKindsApart(t *testing.T) {
	everywhere(t, func(t *testing.T, open func(*testing.T) opened) {
		d := open(t)
		if _, err := d.Put(t.Context(), key("acme", blob.Bundle, "hello"), strings.NewReader("hello"), 10, nil); err != nil {
			t.Fatal(err)
		}
		for _, k := range []blob.Key{
			key("other", blob.Bundle, "hello"),
			key("Acme", blob.Bundle, "hello"),
			key("acme", blob.Build, "hello"),
		} {
			if _, err := d.Stat(t.Context(), k); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
				t.Errorf("Stat(%+v) = %v, want not_found", k, err)
			}
			if _, _, err := d.Open(t.Context(), k); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
				t.Errorf("Open(%+v) = %v, want not_found", k, err)
			}
		}
	})
}

func TestRefusalsLeaveNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, open func(*testing.T) opened) {
		canceled, cancel := context.WithCancel(t.Context())
		cancel()
		broken := errors.New("connection reset")
		for _, c := range []struct {
			name  string
			ctx   context.Context
			key   blob.Key
			body  io.Reader
			check func(string) error
			want  qgjob.Code
		}{
			{"other bytes", t.Context(), key("acme", blob.Bundle, "hello"), strings.NewReader("hellO"), nil, qgjob.CodeInvalid},
			{"cut off", t.Context(), key("acme", blob.Bundle, "hello"), strings.NewReader("hell"), nil, qgjob.CodeInvalid},
			{"too large", t.Context(), key("acme", blob.Bundle, "hello world"), strings.NewReader("hello world"), nil, qgjob.CodeTooLarge},
			{"endless", t.Context(), key("acme", blob.Bundle, "x"), endless{}, nil, qgjob.CodeTooLarge},
			{"broken transfer", t.Context(), key("acme", blob.Bundle, "hello"), io.MultiReader(strings.NewReader("he"), iotest.ErrReader(broken)), nil, qgjob.CodeUnavailable},
			{"caller left", canceled, key("acme", blob.Bundle, "hello"), strings.NewReader("hello"), nil, qgjob.CodeUnavailable},
			{"check says no", t.Context(), key("acme", blob.Build, "hello"), strings.NewReader("hello"), func(path string) error {
				if b, err := os.ReadFile(path); err != nil || string(b) != "hello" {
					t.Errorf("check was given %q, %v", b, err)
				}
				return qgjob.Errorf(qgjob.CodeInvalid, "no APK")
			}, qgjob.CodeInvalid},
			{"path for an organization", t.Context(), blob.Key{OrgID: "../x", Kind: blob.Bundle, SHA256: key("", "", "").SHA256}, strings.NewReader(""), nil, qgjob.CodeInvalid},
			{"path for a hash", t.Context(), blob.Key{OrgID: "acme", Kind: blob.Bundle, SHA256: "../../../../etc/passwd"}, strings.NewReader(""), nil, qgjob.CodeInvalid},
		} {
			t.Run(c.name, func(t *testing.T) {
				d := open(t)
				_, err := d.Put(c.ctx, c.key, c.body, 10, c.check)
				if qgjob.ErrorCode(err) != c.want {
					t.Errorf("Put = %v, want %s", err, c.want)
				}
				if left := d.names(); len(left) > 0 {
					t.Errorf("left behind: %v", left)
				}
			})
		}
	})
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestConcurrentUploadsOfOneFile(t *testing.T) {
	everywhere(t, func(t *testing.T, open func(*testing.T) opened) {
		d := open(t)
		data := bytes.Repeat([]byte("0123456789"), 100_000)
		k := key("acme", blob.Build, string(data))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := d.Put(t.Context(), k, bytes.NewReader(data), 1<<20, nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if left := d.names(); len(left) != 1 {
			t.Errorf("stored: %v, want one file", left)
		}
	})
}

func TestOpenDirRemovesOnlyOldUnfinishedFiles(t *testing.T) {
	_, root := openDir(t)
	old, young := filepath.Join(root, "tmp", "put-old"), filepath.Join(root, "tmp", "put-young")
	for _, p := range []string{old, young} {
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	past := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, past, past); err != nil {
		t.Fatal(err)
	}
	if _, err := blob.OpenDir(root); err != nil {
		t.Fatal(err)
	}
	if left := files(t, root); len(left) != 1 || left[0] != young {
		t.Errorf("left: %v, want %s", left, young)
	}
}

func TestRemoveLeavesWhatIsYoung(t *testing.T) {
	everywhere(t, func(t *testing.T, open func(*testing.T) opened) {
		d := open(t)
		k := key("acme", blob.Artifact, "hello")
		if err := d.Remove(t.Context(), k, time.Now()); err != nil {
			t.Errorf("of a file that is not there: %v", err)
		}
		if _, err := d.Put(t.Context(), k, strings.NewReader("hello"), 10, nil); err != nil {
			t.Fatal(err)
		}
		if err := d.Remove(t.Context(), k, time.Now().Add(-time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Stat(t.Context(), k); err != nil {
			t.Errorf("a young file is gone: %v", err)
		}
		if err := d.Remove(t.Context(), k, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.Stat(t.Context(), k); qgjob.ErrorCode(err) != qgjob.CodeNotFound || len(d.names()) > 0 {
			t.Errorf("after Remove: %v, %v", err, d.names())
		}
	})
}

func TestBucketsThatCannotBeUsed(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "tester")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-tester")
	server := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	defer server.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	defer refusing.Close()
	for address, says := range map[string]string{
		"https://files":               "is no URL of a bucket",
		"s3://":                       "is no URL of a bucket",
		"s3://key:secret@files":       "credentials come from AWS_ACCESS_KEY_ID",
		"s3://files?zone=a":           `"zone" is unknown`,
		"s3://files?endpoint=storage": `endpoint "storage" is none`,
		"s3://files?region=eu-central-1&endpoint=" + server.URL:   "there is no bucket files",
		"s3://files?region=eu-central-1&endpoint=" + refusing.URL: "check endpoint, region and credentials",
	} {
		_, err := blob.OpenS3(t.Context(), address, t.TempDir())
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "secret") && !strings.Contains(err.Error(), "AWS_SECRET") {
			t.Errorf("%s: %v, want %q", address, err, says)
		}
	}
}
