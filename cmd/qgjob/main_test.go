package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"qgjob"
	"qgjob/internal/api"
)

// TestMain lets the test binary be qgjob itself, and the two programs that the scripts need beside it.
func TestMain(m *testing.M) {
	// A program with the race detector sleeps a second when it ends, so that others of its threads may report;
	// here programs end hundreds of times, and have waited for their threads.
	if err := os.Setenv("GORACE", "atexit_sleep_ms=10 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"qgjob":      main,
		"fakeworker": fakeWorker,
		"exits":      exits,
	})
}

// TestScripts runs testdata/script over the real program. Each script has its own home directory and, after
// `server start`, its own server on SQLite, whose address is in QGJOB_URL.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Deadline:            time.Now().Add(10 * time.Minute),
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("GORACE", os.Getenv("GORACE"))
			s := &scriptServer{data: filepath.Join(e.WorkDir, "server-data"), addr: "127.0.0.1:0"}
			e.Values[serverKey{}] = s
			e.Defer(func() { _ = s.end(syscall.SIGKILL) }) // of those that are still there
			return os.Mkdir(home, 0o755)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server":    serverCommand,
			"awaitjob":  awaitJob,
			"terminate": terminate,
			"explain":   explainJob,
			"anonymous": anonymous,
		},
	})
}

// explainJob is `explain FILE`: qgjob explain for the job whose submit's output the file holds.
func explainJob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: explain FILE")
	}
	_, rest, _ := strings.Cut(ts.ReadFile(args[0]), "submitted: ")
	id, _, _ := strings.Cut(rest, "\n")
	ts.Check(ts.Exec("qgjob", "explain", id))
}

// scriptServer is a script's server process.
type scriptServer struct {
	cmd        *exec.Cmd // nil while it does not run
	addr, data string
}

type serverKey struct{}

// serverCommand is `server start [FLAGS]`, `server kill` (SIGKILL) and `server stop` (SIGTERM, in order). A
// server that is started again takes the address and the data of the one before.
func serverCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: server start|kill|stop [FLAGS]")
	}
	s := ts.Value(serverKey{}).(*scriptServer)
	switch args[0] {
	case "start":
		ts.Check(s.start(ts.Getenv("HOME"), args[1:]))
		ts.Setenv("QGJOB_URL", "http://"+s.addr)
	case "kill":
		ts.Check(s.end(syscall.SIGKILL))
	case "stop":
		ts.Check(s.end(syscall.SIGTERM))
	default:
		ts.Fatalf("unknown: server %s", args[0])
	}
}

var listensOn = regexp.MustCompile(`^qgjob server listens on http://(\S+) \(documentation: http://\S+/docs\)$`)

func (s *scriptServer) start(home string, flags []string) error {
	s.cmd = exec.Command("qgjob", append([]string{"server", "--listen=" + s.addr, "--data-dir=" + s.data, "--log-level=error"}, flags...)...)
	s.cmd.Env = append(os.Environ(), "HOME="+home)
	s.cmd.Stderr = os.Stderr
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("the server said nothing: %w", err), s.end(syscall.SIGKILL))
	}
	match := listensOn.FindStringSubmatch(strings.TrimSpace(line))
	if match == nil {
		return errors.Join(fmt.Errorf("the server said %q", line), s.end(syscall.SIGKILL))
	}
	s.addr = match[1]
	return nil
}

// end ends the server. One that was asked to end in order must do so with exit code 0.
func (s *scriptServer) end(sig syscall.Signal) error {
	if s.cmd == nil {
		return nil
	}
	cmd := s.cmd
	s.cmd = nil
	if err := cmd.Process.Signal(sig); err != nil {
		return err
	}
	err := cmd.Wait()
	if sig == syscall.SIGKILL {
		return nil
	}
	return err
}

// awaitJob is `awaitjob STATE TEST`: it waits until there is a job of that test and the newest one has been
// in that state, and puts its id into JOB and its run's into RUN.
func awaitJob(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: awaitjob STATE TEST")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := &api.Client{BaseURL: ts.Getenv("QGJOB_URL")}
	id, run := "", ""
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for id == "" {
		list, err := client.Jobs(ctx, api.JobQuery{})
		ts.Check(err)
		if at := slices.IndexFunc(list.Jobs, func(j qgjob.Job) bool { return j.TestPath == args[1] }); at >= 0 {
			id, run = list.Jobs[at].ID, list.Jobs[at].RunID
			break
		}
		<-again.C
	}
	ts.Check(until(client.WatchJob(ctx, id, 0, func(e qgjob.Event) error {
		if string(e.State) == args[0] {
			return errSeen
		}
		return nil
	})))
	ts.Setenv("JOB", id)
	ts.Setenv("RUN", run)
}

// errSeen ends a watch that saw what it looked for.
var errSeen = errors.New("seen")

func until(err error) error {
	switch {
	case errors.Is(err, errSeen):
		return nil
	case err == nil:
		return errors.New("it ended without what was looked for")
	}
	return err
}

// terminate is `terminate PROGRAM`: it sends SIGTERM to the program in the background, which kill cannot.
func terminate(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: terminate PROGRAM")
	}
	for _, cmd := range ts.BackgroundCmds() {
		if filepath.Base(cmd.Path) == args[0] {
			ts.Check(cmd.Process.Signal(syscall.SIGTERM))
			return
		}
	}
	ts.Fatalf("%s does not run in the background", args[0])
}

var uuids = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// anonymous is `anonymous FROM TO`: it copies a file with every id replaced by ID.
func anonymous(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: anonymous FROM TO")
	}
	text := uuids.ReplaceAllString(ts.ReadFile(args[0]), "ID")
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o644))
}

// exits is `exits CODE PROGRAM ARGS...`: it runs the program, hands its signals on, and fails unless the
// program ends with that code.
func exits() {
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := notify()
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go func() {
		for sig := range signals {
			_ = cmd.Process.Signal(sig) // it may have ended
		}
	}()
	_ = cmd.Wait() // the code says it
	if got := fmt.Sprint(cmd.ProcessState.ExitCode()); got != os.Args[1] {
		fmt.Fprintf(os.Stderr, "exit code %s, want %s\n", got, os.Args[1])
		os.Exit(1)
	}
}
