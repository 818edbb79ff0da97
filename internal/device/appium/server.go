package appium

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// Bounds of a server's life.
const (
	startTimeout = 60 * time.Second // from the process's start to the first healthy answer
	stopTimeout  = 10 * time.Second // from SIGTERM to SIGKILL
	askTimeout   = 2 * time.Second  // of one question whether it is healthy
	startTries   = 3                // another process may take the chosen port first
)

// Ports of servers. They are reserved: of two servers that find the same one free, the one that does not get it would take the other's answers
// for its own.
const (
	firstPort = 20000
	lastPort  = 20999
)

// Options of a server.
type Options struct {
	LogPath string   // Appium's own log is appended here and bounded to 32 MB, with <LogPath>.1
	TempDir string   // for Appium's own temporary files
	Env     []string // KEY=value, on top of the little that Appium needs
	// Before is called for each session that is asked for, with the request's body, before Appium sees it. It returns what Appium is to see, or why there
	// is no session. It may be nil.
	Before func(ctx context.Context, request []byte) ([]byte, error)
}

// Server is a running Appium server.
type Server struct {
	URL     string // for clients: http://127.0.0.1:<port>
	LogPath string

	direct  string // the process's own URL
	front   *front
	process *device.Process
	done    chan struct{}
	http    *http.Client
}

// Start starts a server and waits until it is healthy, a minute at most. The error is a *device.Failure,
// or wraps the context's error; then no process is left.
func (in *Install) Start(ctx context.Context, opts Options) (*Server, error) {
	for try := 1; ; try++ {
		port, held, err := device.ReservePort(device.HostLockDir, firstPort, lastPort)
		if err != nil {
			return nil, err
		}
		s, err := in.start(ctx, opts, port)
		if err == nil {
			go func() {
				<-s.done
				held.Unlock()
			}()
			return s, nil
		}
		held.Unlock()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("start of Appium: %w", context.Cause(ctx))
		}
		if try == startTries || !errors.Is(err, errPortTaken) {
			return nil, device.Failf(qgjob.CauseAppiumDied, "Appium cannot be started (its log is %s): %w", opts.LogPath, err)
		}
	}
}

// healthTimeout bounds the question whether a warm server still answers.
const healthTimeout = 5 * time.Second

// Warm returns a server that answers: the one that runs (nil where none does), or, in its place, another one with the options, which are
// made only then. With an error there is none, unless it is ctx that ended.
func (in *Install) Warm(ctx context.Context, running *Server, log *slog.Logger, options func() (Options, error)) (*Server, error) {
	if running != nil {
		asking, cancel := context.WithTimeout(ctx, healthTimeout)
		err := running.Healthy(asking)
		cancel()
		if err == nil {
			return running, nil
		}
		if ctx.Err() != nil {
			return running, fmt.Errorf("health of Appium: %w", context.Cause(ctx))
		}
		log.Warn("Appium does not answer: it is started again", "error", err)
		running.Close()
	}
	opts, err := options()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	s, err := in.Start(ctx, opts)
	if err != nil {
		return nil, err
	}
	log.Info("Appium started", "url", s.URL, "took", time.Since(began).Round(time.Millisecond))
	return s, nil
}

var errPortTaken = errors.New("the port was taken by another process")

func (in *Install) start(ctx context.Context, opts Options, port int) (*Server, error) {
	if err := os.MkdirAll(opts.TempDir, 0o700); err != nil {
		return nil, err
	}
	log, err := openLog(opts.LogPath)
	if err != nil {
		return nil, err
	}
	direct := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	front, err := openFront(direct, opts.Before)
	if err != nil {
		log.Close()
		return nil, err
	}
	s := &Server{
		URL:     front.url(),
		LogPath: opts.LogPath,
		front:   front,
		direct:  direct.String(),
		done:    make(chan struct{}),
		// No proxy and no connections kept: a request's answer must come from the process that runs now.
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}},
	}
	if err := s.run(in, port, opts, log); err != nil {
		front.close()
		log.Close()
		return nil, err
	}
	if err := s.ready(ctx); err != nil {
		s.process.Kill()
		<-s.done
		return nil, err
	}
	return s, nil
}

// run starts the process and the goroutine that waits for its end.
func (s *Server) run(in *Install, port int, opts Options, log *logFile) error {
	cmd := device.LifelineCommand(in.node, in.entry(), "server",
		"--address", "127.0.0.1", "--port", strconv.Itoa(port),
		"--session-override", // a session that a test left open must not hold the device against the next
		"--allow-insecure", "session_discovery",
		"--tmp", opts.TempDir,
		"--log-timestamp", "--log-no-colors", "--log-level", "debug")
	cmd.Dir = opts.TempDir
	cmd.Env = append(in.env(opts.Env), "APPIUM_TMP_DIR="+opts.TempDir) // it makes a directory before it reads --tmp
	cmd.Stdout, cmd.Stderr = log, log
	process, err := device.StartProcess(cmd)
	if err != nil {
		return err
	}
	s.process = process
	go func() {
		defer close(s.done)
		defer log.Close()
		<-process.Done() // how it ended is in the log
		s.front.close()
	}()
	return nil
}

// Done is closed when the server and its whole process group have ended.
func (s *Server) Done() <-chan struct{} { return s.done }

// Close asks the server to end its sessions and itself, and kills it with its process group when it has
// not after ten seconds. It returns when nothing is left, and is idempotent.
func (s *Server) Close() {
	s.process.Stop(stopTimeout)
	<-s.done
}

// Healthy says whether the server answers within the context.
func (s *Server) Healthy(ctx context.Context) error {
	var status struct {
		Ready bool `json:"ready"`
	}
	if err := s.call(ctx, http.MethodGet, "/status", &status); err != nil {
		return err
	}
	if !status.Ready {
		return errors.New("the server says that it is not ready")
	}
	return nil
}

// EndSessions deletes every session that is open on the server but one, and those that are being made as soon
// as they are, and returns how many there were. keep is "" for none.
func (s *Server) EndSessions(ctx context.Context, keep string) (int, error) {
	if err := s.front.wait(ctx); err != nil {
		return 0, fmt.Errorf("a session is being made: %w", err)
	}
	var sessions []struct {
		ID string `json:"id"`
	}
	if err := s.call(ctx, http.MethodGet, "/appium/sessions", &sessions); err != nil {
		return 0, err
	}
	ended := 0
	for _, session := range sessions {
		if session.ID == keep {
			continue
		}
		if err := s.call(ctx, http.MethodDelete, "/session/"+session.ID, nil); err != nil {
			return ended, err
		}
		ended++
	}
	return ended, nil
}

func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("it does not answer after %v", startTimeout))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		err := s.Healthy(asking)
		cancel()
		if err == nil {
			select {
			case <-s.done: // it was somebody else who answered
			default:
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-s.done:
			return s.whyEnded()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// errEnded is the answer for a server that has ended, whose port may be another's by now.
var errEnded = errors.New("the server has ended")

func (s *Server) call(ctx context.Context, method, path string, value any) error {
	select {
	case <-s.done:
		return errEnded
	default:
	}
	req, err := http.NewRequestWithContext(ctx, method, s.direct+path, nil)
	if err != nil {
		return err
	}
	res, err := s.http.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s: %.300s", method, path, res.Status, body)
	}
	if value == nil {
		return nil
	}
	answer := struct {
		Value any `json:"value"`
	}{value}
	return json.Unmarshal(body, &answer)
}

// env is the environment of the install's processes: what a program needs on a host, Appium's home, and
// nothing else of ours, so that neither a proxy nor a credential reaches it.
func (in *Install) env(extra []string) []string {
	env := []string{"APPIUM_HOME=" + in.Dir}
	for _, key := range []string{"PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR"} {
		if value, ok := os.LookupEnv(key); ok {
			env = append(env, key+"="+value)
		}
	}
	return append(env, extra...)
}

// whyEnded reads the end of the log of a server that ended while it started.
func (s *Server) whyEnded() error {
	data, err := os.ReadFile(s.LogPath)
	if err != nil {
		return err
	}
	tail := lastLines(data)
	if strings.Contains(tail, "EADDRINUSE") {
		return errPortTaken
	}
	return fmt.Errorf("it ended: %s", tail)
}

// PID is the id of the server's process and of its process group.
func (s *Server) PID() int { return s.process.PID }
