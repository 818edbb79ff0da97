package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"qgjob/bench/internal/result"
)

// bench is a scratch directory with a test project and the app, and what is measured with them.
type bench struct {
	options
	dir     string // scratch
	qgjob   string // binary
	example string // the example project, whose npm packages are used
	apk     string
}

// shortSpec looks at the app's first screen and is done; slowSpec waits first, as a test does that is mostly the app's
// own work.
const (
	shortSpec = `import { test, expect } from "appwright";
test("the app starts", async ({ device }) => {
  await expect(device.getByText("Next")).toBeVisible();
});
`
	slowSpec = `import { test, expect } from "appwright";
test("the app starts, in a while", async ({ device }) => {
  await new Promise((r) => setTimeout(r, %d));
  await expect(device.getByText("Next")).toBeVisible();
});
`
)

func newBench(ctx context.Context, o options) (*bench, error) {
	b := &bench{options: o, example: filepath.Join(o.checkout, "examples", "onboarding")}
	if _, err := os.Stat(filepath.Join(b.example, "node_modules", "appwright")); err != nil {
		return nil, fmt.Errorf("the example project has no npm packages: run make bench-setup, which installs them: %w", err)
	}
	var err error
	if b.dir, err = os.MkdirTemp("", "setupbench-"); err != nil {
		return nil, err
	}
	b.qgjob, b.apk = filepath.Join(b.dir, "qgjob"), filepath.Join(b.dir, "corner-shop.apk")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.qgjob, "./cmd/qgjob")
	build.Dir, build.Env = o.checkout, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build qgjob: %w: %s", err, out)
	}
	apk := exec.CommandContext(ctx, b.qgjob, "phone", "apk", filepath.Join(b.example, "app", "corner-shop.json"), "-o", b.apk)
	if out, err := apk.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("make the app: %w: %s", err, out)
	}
	return b, b.sign(ctx)
}

// sign signs the app, as every app is; stock AppWright's Appium would do it at each session otherwise.
func (b *bench) sign(ctx context.Context) error {
	keys := filepath.Join(b.dir, "keys")
	for _, args := range [][]string{
		{"keytool", "-genkeypair", "-keystore", keys, "-storepass", "android", "-keypass", "android", "-alias", "debug", "-keyalg", "RSA", "-dname", "CN=debug"},
		{"apksigner", "sign", "--ks", keys, "--ks-pass", "pass:android", "--min-sdk-version", "24", b.apk},
	} {
		if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("sign the app: %w: %s", err, out)
		}
	}
	return nil
}

// project makes a test project of so many specs with the given text. Its npm packages are the example's.
func (b *bench) project(name string, specs int, text string) (dir string, err error) {
	dir = filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Join(dir, "tests"), 0o755); err != nil {
		return "", err
	}
	for _, file := range []string{"package.json", "package-lock.json", "appwright.config.ts"} {
		content, err := os.ReadFile(filepath.Join(b.example, file))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o644); err != nil {
			return "", err
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "build"), 0o755); err != nil {
		return "", err
	}
	if err := os.Link(b.apk, filepath.Join(dir, "build", "corner-shop.apk")); err != nil {
		return "", err
	}
	if err := os.Symlink(filepath.Join(b.example, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		return "", err
	}
	for i := range specs {
		if err := os.WriteFile(filepath.Join(dir, specName(i)), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

func specName(i int) string { return fmt.Sprintf("tests/spec-%02d.spec.ts", i+1) }

// measure takes all measurements, one after another, and returns what people read.
func (b *bench) measure(ctx context.Context) (string, error) {
	var out strings.Builder
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	fmt.Fprintf(&out, "%s, on %s; before it began, the machine's load was %s.\n\n", time.Now().UTC().Format("2 January 2006"), result.ThisMachine(), strings.Fields(string(load))[0])
	if b.only != "phones" {
		tables, err := b.batch(ctx)
		if err != nil {
			return "", err
		}
		out.WriteString(tables)
	}
	if b.only == "batch" {
		return out.String(), nil
	}
	for _, kind := range []struct{ name, text string }{
		{fmt.Sprintf("specs that wait %s", b.wait), fmt.Sprintf(slowSpec, b.wait.Milliseconds())},
		{"specs that do not wait", shortSpec},
	} {
		say("%s: one phone, then %d", kind.name, b.phones)
		const each = 6 // so that the start of the phones, one after another on few cores, weighs little
		one, err := b.fleet(ctx, 1, each, kind.text)
		if err != nil {
			return "", fmt.Errorf("one phone, %s: %w", kind.name, err)
		}
		many, err := b.fleet(ctx, b.phones, each*b.phones, kind.text)
		if err != nil {
			return "", fmt.Errorf("%d phones, %s: %w", b.phones, kind.name, err)
		}
		out.WriteString(fleetTables(kind.name, kind.text != shortSpec, one, many))
	}
	return out.String(), nil
}

// batch measures the same specs by stock AppWright and by qgjob.
func (b *bench) batch(ctx context.Context) (string, error) {
	say("%d specs by stock AppWright", b.specs)
	stock, err := b.stock(ctx)
	if err != nil {
		return "", fmt.Errorf("stock AppWright: %w", err)
	}
	say("%d specs by qgjob", b.specs)
	ours, err := b.fleet(ctx, 1, b.specs, shortSpec)
	if err != nil {
		return "", fmt.Errorf("qgjob: %w", err)
	}
	return batchTables(b.options, stock, ours), nil
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// measured is what so many specs cost.
type measured struct {
	phones, specs int
	wall          time.Duration // from the first submit to the last verdict
	steady        time.Duration // from the verdict after which every phone has been set up to the last one
	cpu           time.Duration
	memory        int64 // most at once, in bytes, of all processes together
	installs      int   // by the phones' own account
	sessions      int
}

// ledger is the part of a simulated phone's account that is read here.
type ledger struct {
	Apps struct {
		Installs int `json:"installs"`
	} `json:"apps"`
	SessionsOpened int `json:"sessions_opened"`
}
