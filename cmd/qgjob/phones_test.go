package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/phonesim"
)

// background is a qgjob that runs until it is told to end.
type background struct {
	t      *testing.T
	cmd    *exec.Cmd
	out    *bufio.Reader
	stderr bytes.Buffer // to be read after end
}

func inBackground(t *testing.T, args ...string) *background {
	t.Helper()
	b := &background{t: t, cmd: exec.Command("qgjob", args...)}
	home := t.TempDir()
	b.cmd.Env = append(os.Environ(), "HOME="+home, "XDG_DATA_HOME=", "XDG_CACHE_HOME=", "CI=", "GITHUB_ACTIONS=")
	b.cmd.Dir = home
	b.cmd.Stderr = &b.stderr
	out, err := b.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	b.out = bufio.NewReader(out)
	if err := b.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.cmd.Process.Kill(); _ = b.cmd.Wait() }) // of one that was not ended
	return b
}

// await reads the output up to a line that matches and returns the match's groups.
func (b *background) await(pattern string) []string {
	b.t.Helper()
	tooLate := time.AfterFunc(time.Minute, func() { _ = b.cmd.Process.Kill() })
	defer tooLate.Stop()
	for re := regexp.MustCompile(pattern); ; {
		line, err := b.out.ReadString('\n')
		if match := re.FindStringSubmatch(strings.TrimSuffix(line, "\n")); match != nil {
			return match
		}
		if err != nil {
			_ = b.cmd.Wait()
			b.t.Fatalf("%s was not said: %v\n%s", pattern, err, b.stderr.String())
		}
	}
}

// end sends a signal, and expects an end in order.
func (b *background) end(sig os.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(sig); err != nil {
		b.t.Fatal(err)
	}
	tooLate := time.AfterFunc(30*time.Second, func() { _ = b.cmd.Process.Kill() })
	defer tooLate.Stop()
	rest, _ := io.ReadAll(b.out) // ends with the process
	if err := b.cmd.Wait(); err != nil {
		b.t.Errorf("it ended with %v\n%s%s", err, rest, b.stderr.String())
	}
}

const simulated = `^Simulated phone (\S+): adb (\S+) \| control (http://\S+)$`

func TestPhone(t *testing.T) {
	b := inBackground(t, "phone", "--serial=SHOP7", "--model=Shop Phone", "--emulator")
	at := b.await(simulated)
	b.await(`^Connect with: adb connect ` + regexp.QuoteMeta(at[2]) + `$`)
	resp, err := http.Get(at[3] + "/ledger")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var ledger phonesim.Ledger
	if err := json.NewDecoder(resp.Body).Decode(&ledger); err != nil || ledger.Serial != "SHOP7" || at[1] != "SHOP7" {
		t.Errorf("the ledger is that of %q (%v), want SHOP7, as it said: %q", ledger.Serial, err, at[1])
	}

	// It speaks HTTP and is no qgjob server: that is not to be taken for a job that does not exist.
	wrong := exec.Command("qgjob", "status", "--job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804", "--url="+at[3])
	if out, _ := wrong.CombinedOutput(); wrong.ProcessState.ExitCode() != 20 || !strings.Contains(string(out), "is no qgjob server") {
		t.Errorf("status asked the phone's control interface: exit code %d, %s", wrong.ProcessState.ExitCode(), out)
	}
	b.end(syscall.SIGTERM)
}

// TestDev starts server, worker and two phones in one process, and ends them with Ctrl-C: all of them, and adb.
func TestDev(t *testing.T) {
	data := t.TempDir()
	b := inBackground(t, "dev", "--phones=2", "--listen=127.0.0.1:0", "--data-dir="+data)
	phones := []string{b.await(simulated)[2], b.await(simulated)[2]}
	url := b.await(`^qgjob server listens on (http://\S+) `)[1]
	b.await(`^Worker has started! Polling for jobs...$`)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := &api.Client{BaseURL: url}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for idle := 0; idle < len(phones); <-again.C {
		list, err := client.Devices(ctx)
		if err != nil {
			t.Fatal(err)
		}
		idle = 0
		for _, d := range list.Devices {
			if d.Serial != phones[0] && d.Serial != phones[1] {
				t.Fatalf("dev uses %s, which is none of its phones %v", d.Serial, phones)
			}
			if d.State == qgjob.DeviceIdle {
				idle++
			}
		}
	}

	taken := exec.Command("qgjob", "dev", "--listen="+strings.TrimPrefix(url, "http://"), "--data-dir="+t.TempDir())
	if out, _ := taken.CombinedOutput(); taken.ProcessState.ExitCode() != 20 || !strings.Contains(string(out), "is taken, perhaps by another qgjob server") {
		t.Errorf("a second one on the same address: exit code %d, %s", taken.ProcessState.ExitCode(), out)
	}

	b.end(os.Interrupt)
	if left := processesOf(t, filepath.Join(data, "adb")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestRunLocalRefuses runs tests on this host that no device of it can run: that is said at once, as is what to do.
func TestRunLocalRefuses(t *testing.T) {
	qgjob, err := exec.LookPath("qgjob")
	if err != nil {
		t.Fatal(err)
	}
	project, bare := t.TempDir(), t.TempDir()
	for _, name := range []string{"node", "npm"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bare, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"package.json", "appwright.config.ts", "a.spec.ts"} {
		if err := os.WriteFile(filepath.Join(project, name), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		path  string
		flags []string
		code  int
		says  string
	}{
		"none that fits": {os.Getenv("PATH"), []string{"--phones=1", "--requires=os>=99"}, 18, "has os 14, not os>=99"},
		"of a kind":      {os.Getenv("PATH"), []string{"--phones=1", "--target=browserstack"}, 18, "is a device, not browserstack"},
		"no node":        {filepath.Dir(qgjob), nil, 20, "tests cannot run on this host: node is not on the PATH: install Node.js 20 or newer"},
		"no adb":         {bare, nil, 20, "there is no adb on this host, by which phones and emulators are found: install it (Debian, Ubuntu: apt install adb"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a run that waits for a device does so for two hours
			defer cancel()
			cmd := exec.CommandContext(ctx, qgjob, append([]string{"run", "--local", "--test=a.spec.ts"}, c.flags...)...)
			cmd.Dir = project
			cmd.Env = append(os.Environ(), "PATH="+c.path, "HOME="+t.TempDir(), "XDG_DATA_HOME=", "XDG_CACHE_HOME=", "ANDROID_HOME=", "ANDROID_SDK_ROOT=", "CI=", "GITHUB_ACTIONS=")
			out, _ := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != c.code || !strings.Contains(string(out), c.says) {
				t.Errorf("exit code %d, want %d: %s", cmd.ProcessState.ExitCode(), c.code, out)
			}
		})
	}
}

// processesOf returns the processes that live in a home directory.
func processesOf(t *testing.T, home string) []string {
	t.Helper()
	found, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, path := range found {
		environ, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(environ, []byte("HOME="+home+"\x00")) {
			continue // gone, or another user's
		}
		if stat, err := os.ReadFile(filepath.Join(filepath.Dir(path), "stat")); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
			left = append(left, fmt.Sprintf("%.60s", stat))
		}
	}
	return left
}
