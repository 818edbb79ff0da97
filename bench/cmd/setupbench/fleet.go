package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// limit bounds one measurement.
const limit = 15 * time.Minute

var (
	listening = regexp.MustCompile(`qgjob server listens on (http://\S+)`)
	control   = regexp.MustCompile(`control (http://\S+)`)
)

// fleet runs specs with qgjob on simulated phones: server, worker and phones are one process, as qgjob dev has them.
// The worker begins with nothing but its Appium and the npm packages installed.
func (b *bench) fleet(ctx context.Context, phones, specs int, text string) (m measured, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	name := fmt.Sprintf("fleet-%d-%d-%d", phones, specs, time.Now().UnixNano())
	project, err := b.project(name, specs, text)
	if err != nil {
		return m, err
	}
	dev := exec.Command(b.qgjob, "dev", fmt.Sprintf("--phones=%d", phones), "--install-time="+b.install.String(),
		"--listen=127.0.0.1:0", "--data-dir="+filepath.Join(b.dir, name+"-data"), "--project-dir="+project, "--log-level=error")
	dev.Dir = project
	dev.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(b.checkout, ".cache"))
	dev.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	dev.Stderr = os.Stderr
	stdout, err := dev.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := dev.Start(); err != nil {
		return m, err
	}
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		_ = dev.Process.Signal(syscall.SIGINT)
		return dev.Wait()
	}
	defer func() { err = errors.Join(err, stop()) }()

	url, controls, err := started(stdout, phones)
	if err != nil {
		return m, err
	}
	memory := watchMemory(dev.Process.Pid)
	defer memory.stop()
	m = measured{phones: phones, specs: specs}
	began := time.Now()
	ids, err := submit(ctx, url, specs)
	if err != nil {
		return m, err
	}
	ends, err := verdicts(ctx, url, ids)
	if err != nil {
		return m, err
	}
	m.wall = ends[len(ends)-1].Sub(began)
	m.steady = ends[len(ends)-1].Sub(ends[phones-1])
	for _, c := range controls {
		l, err := readLedger(ctx, c)
		if err != nil {
			return m, err
		}
		m.installs += l.Apps.Installs
		m.sessions += l.SessionsOpened
	}
	m.memory = memory.stop()
	if err := stop(); err != nil {
		return m, err
	}
	m.cpu = dev.ProcessState.UserTime() + dev.ProcessState.SystemTime()
	return m, nil
}

// started reads where the server and the phones listen.
func started(stdout io.Reader, phones int) (url string, controls []string, err error) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if m := control.FindStringSubmatch(lines.Text()); m != nil {
			controls = append(controls, m[1])
		}
		if m := listening.FindStringSubmatch(lines.Text()); m != nil {
			url = m[1]
		}
		if url != "" && len(controls) == phones {
			go io.Copy(io.Discard, stdout)
			return url, controls, nil
		}
	}
	return "", nil, errors.Join(errors.New("qgjob dev did not start"), lines.Err())
}

// submit submits all specs in one request, for the project in the worker's directory.
func submit(ctx context.Context, url string, specs int) ([]string, error) {
	var jobs []map[string]string
	for i := range specs {
		jobs = append(jobs, map[string]string{"test_path": specName(i)})
	}
	body, err := json.Marshal(map[string]any{"org_id": "corner-shop", "app_version_id": "1.2.0", "jobs": jobs})
	if err != nil {
		return nil, err
	}
	var run struct {
		Jobs []struct {
			ID string `json:"id"`
		} `json:"jobs"`
	}
	if err := call(ctx, http.MethodPost, url+"/v1/runs", strings.NewReader(string(body)), &run); err != nil {
		return nil, err
	}
	ids := make([]string, len(run.Jobs))
	for i, j := range run.Jobs {
		ids[i] = j.ID
	}
	return ids, nil
}

// verdicts waits until every job has passed, and returns when each did, in order.
func verdicts(ctx context.Context, url string, ids []string) ([]time.Time, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var ends []time.Time
	for left := ids; len(left) > 0; {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%d of %d jobs have no verdict: %w", len(left), len(ids), ctx.Err())
		case <-tick.C:
		}
		var list struct {
			Jobs []struct {
				ID       string    `json:"id"`
				State    string    `json:"state"`
				Message  string    `json:"message"`
				Attempts int       `json:"attempts"`
				EndedAt  time.Time `json:"ended_at"`
			} `json:"jobs"`
		}
		if err := call(ctx, http.MethodGet, url+"/v1/jobs?limit=500", nil, &list); err != nil {
			return nil, err
		}
		ends = ends[:0]
		for _, j := range list.Jobs {
			switch j.State {
			case "passed":
				if j.Attempts != 1 {
					return nil, fmt.Errorf("job %s took %d attempts: the measurement is spoiled", j.ID, j.Attempts)
				}
				ends = append(ends, j.EndedAt)
			case "failed", "errored":
				return nil, fmt.Errorf("job %s is %s: %s", j.ID, j.State, j.Message)
			}
		}
		left = ids[:len(ids)-len(ends)]
	}
	slices.SortFunc(ends, time.Time.Compare)
	return ends, nil
}

func readLedger(ctx context.Context, control string) (l ledger, err error) {
	return l, call(ctx, http.MethodGet, control+"/ledger", nil, &l)
}

func call(ctx context.Context, method, url string, body io.Reader, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	content, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %.300s", method, url, answer.Status, content)
	}
	return json.Unmarshal(content, into)
}
