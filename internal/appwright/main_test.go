package appwright

import (
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// nodeProject makes a test project of the specs in testdata/project, with the npm packages of the example
// project, and returns its directory.
func nodeProject(t *testing.T, name string) string {
	t.Helper()
	modules, err := filepath.Abs("../../examples/onboarding/node_modules")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "appwright", "package.json")); err != nil {
		t.Fatalf("the example project has no npm packages (%v): run make test, which installs them", err)
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(dir, name)
	if err := os.CopyFS(dir, os.DirFS("testdata/project")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return dir
}
