package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"qgjob"
	"qgjob/internal/blob"
)

func key(org string, kind blob.Kind, data string) blob.Key {
	sum := sha256.Sum256([]byte(data))
	return blob.Key{OrgID: org, Kind: kind, SHA256: hex.EncodeToString(sum[:])}
}

func open(t *testing.T) (*blob.Dir, string) {
	t.Helper()
	root := filepath.Join(t.TempDir(), "blobs")
	d, err := blob.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d, root
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

func TestDirStoresWhatItIsGiven(t *testing.T) {
	d, _ := open(t)
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
}

func TestDirKeepsOrganizationsAndKindsApart(t *testing.T) {
	d, _ := open(t)
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
}

func TestDirRefusalsLeaveNothing(t *testing.T) {
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
			d, root := open(t)
			_, err := d.Put(c.ctx, c.key, c.body, 10, c.check)
			if qgjob.ErrorCode(err) != c.want {
				t.Errorf("Put = %v, want %s", err, c.want)
			}
			if left := files(t, root); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestDirConcurrentUploadsOfOneFile(t *testing.T) {
	d, root := open(t)
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
	if left := files(t, root); len(left) != 1 {
		t.Errorf("stored: %v, want one file", left)
	}
}

func TestOpenDirRemovesOnlyOldUnfinishedFiles(t *testing.T) {
	_, root := open(t)
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
