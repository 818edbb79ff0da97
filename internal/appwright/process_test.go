package appwright

import (
	"bufio"
	"context"
	"io"
	"os"
	"testing"
	"time"
)

// startShell runs a shell script until it has printed a line.
func startShell(t *testing.T, script string) *process {
	t.Helper()
	out, in := io.Pipe()
	p, err := startProcess(command{path: "/bin/sh", args: []string{"-c", script}, dir: t.TempDir(), env: []string{"PATH=" + os.Getenv("PATH")}, stdout: in, stderr: in})
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, lines)
	t.Cleanup(func() { in.Close() })
	return p
}

func TestNothingOfAProcessIsLeft(t *testing.T) {
	for name, script := range map[string]string{
		"a child in the group":     "sleep 1000 & echo ready; exit 3",
		"a child that left it":     "setsid sleep 1000 & echo ready; exit 3",
		"one that left, then more": "setsid sh -c 'sleep 1000 & sleep 1000' & echo ready; exit 3",
		"one without environment":  "env -i sleep 1000 & echo ready; exit 3",
	} {
		p := startShell(t, script)
		if exit := p.wait(t.Context()); exit.code != 3 {
			t.Errorf("%s: %s", name, exit)
		}
		if left := p.family.living(); len(left) != 0 {
			t.Errorf("%s: processes %v are left", name, left)
		}
	}
}

func TestStopping(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		exit   exit
	}{
		"one that obeys":     {"echo ready; sleep 1000", exit{-1, "terminated"}},
		"one that cleans up": {"trap 'exit 7' TERM; echo ready; sleep 1000 & wait", exit{7, ""}},
		"one that refuses":   {"trap '' TERM; echo ready; while :; do sleep 1000; done", exit{-1, "killed"}},
	} {
		p := startShell(t, c.script)
		p.grace = 500 * time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got := p.wait(ctx); got != c.exit {
			t.Errorf("%s: %s", name, got)
		}
		if left := p.family.living(); len(left) != 0 {
			t.Errorf("%s: processes %v are left", name, left)
		}
	}
}
