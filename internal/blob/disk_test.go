package blob

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"qgjob"
	"qgjob/internal/disk"
)

// What is left of a disk is the database's: no upload takes it.
func TestAFullDiskTakesNoFile(t *testing.T) {
	freeSpace = func(string) (int64, error) { return reserve - 1, nil }
	t.Cleanup(func() { freeSpace = disk.Free })
	root := t.TempDir()
	d, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	k := Key{OrgID: "acme", Kind: Build, SHA256: strings.Repeat("ab", 32)}
	_, err = d.Put(t.Context(), k, strings.NewReader("apk"), 100, nil)
	if qgjob.ErrorCode(err) != qgjob.CodeUnavailable || !strings.Contains(err.Error(), "511 MiB left") {
		t.Errorf("Put = %v", err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "tmp")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}
