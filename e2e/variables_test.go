package e2e

import (
	"archive/zip"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qgjob"
)

const secretSpec = `import { test, expect } from "appwright";
import { signIn } from "./app";
test("signs in to " + process.env.STAGE, async ({ device }) => {
  console.log("the password is " + process.env.SHOP_PASSWORD);
  await signIn(device, "ada@example.com", process.env.SHOP_PASSWORD);
  await expect(device.getByText("Hello, ada@example.com")).toBeVisible();
  throw new Error("no more than " + process.env.SHOP_PASSWORD);
});
`

// TestSecretAndVideo submits a test with variables, a secret and a recording. The config and the test see the variables, and
// nothing that is left to read holds the secret, which the test prints, types and fails with.
func TestSecretAndVideo(t *testing.T) {
	t.Parallel()
	const password = "open sesame"
	s := newStack(t, 1)
	config, err := os.ReadFile(filepath.Join(root, "examples/onboarding/appwright.config.ts"))
	if err != nil {
		t.Fatal(err)
	}
	dir := s.project(map[string]string{
		"tests/secret.spec.ts": secretSpec,
		"appwright.config.ts":  "if (!process.env.STAGE) throw new Error('STAGE is not set');\n" + string(config),
	})
	w := s.worker(s.phones, "--forever")
	p := start(t, dir, append(s.env(), "SHOP_PASSWORD="+password), s.submitArgs("tests/secret.spec.ts", "--env=STAGE=beta", "--secret=SHOP_PASSWORD", "--video=on", "--wait")...)
	if code := p.exit(5 * time.Minute); code != 1 {
		t.Fatalf("exit %d, want 1\n%s%s", code, p.out, p.errOut)
	}
	id, _, _ := strings.Cut(strings.TrimPrefix(p.out.String(), "Success! Job submitted: "), "\n")
	d := s.job(id)
	if d.Cause != qgjob.CauseTestFailed || len(d.AttemptList) != 3 || !strings.Contains(d.Message, "no more than ***") {
		t.Errorf("job is %s after %d attempts: %s", d.Cause, len(d.AttemptList), d.Message)
	}
	log := s.log(id)
	if !strings.Contains(log, "the password is ***") || !strings.Contains(log, "signs in to beta") {
		t.Errorf("log:\n%s", log)
	}
	left := filepath.Join(t.TempDir(), "left")
	if out, code := run(t, dir, s.env(), time.Minute, "artifacts", "--job-id="+id, "--output="+left); code != 0 {
		t.Fatalf("artifacts: exit %d: %s", code, out)
	}
	status, _ := run(t, dir, s.env(), time.Minute, "status", "--job-id="+id, "--json")
	texts := map[string][]byte{"output": []byte(p.out.String() + p.errOut.String()), "log": []byte(log), "status": []byte(status)}
	err = filepath.WalkDir(left, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			texts[strings.TrimPrefix(path, left)], err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	films := 0
	for name, content := range texts {
		if strings.HasSuffix(name, ".mp4") {
			films++
		}
		for place, text := range unpacked(t, name, content) {
			for _, form := range []string{password, `"o","p","e","n"," ","s"`, "open%20sesame"} {
				if bytes.Contains(text, []byte(form)) {
					t.Errorf("%s holds the secret", place)
				}
			}
		}
	}
	if films < len(d.AttemptList) {
		t.Errorf("%d recordings of %d attempts", films, len(d.AttemptList))
	}
	w.signal(15)
	w.exit(time.Minute)
	s.nothingLeft()
}

// unpacked is a file, and what is in it when it is a zip.
func unpacked(t *testing.T, name string, content []byte) map[string][]byte {
	t.Helper()
	all := map[string][]byte{name: content}
	if !strings.HasSuffix(name, ".zip") {
		return all
	}
	z, err := zip.NewReader(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatalf("%s in %s: %v", f.Name, name, err)
		}
		inner, err := io.ReadAll(in)
		in.Close()
		if err != nil {
			t.Fatalf("%s in %s: %v", f.Name, name, err)
		}
		for place, text := range unpacked(t, name+"!"+f.Name, inner) {
			all[place] = text
		}
	}
	return all
}
