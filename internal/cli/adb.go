package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"

	"qgjob/internal/device"
	"qgjob/internal/device/adb"
)

// adbServer is an adb server of our own for simulated phones. It looks for nothing: no USB, no emulators, no
// network discovery, so that it meets only what it is told to connect to.
type adbServer struct {
	port    int
	process *device.Process
	output  bytes.Buffer // read after the process has ended
}

// adbStart is how long an adb server may take to answer.
const adbStart = 15 * time.Second

// adbStop is how long the end of a server may take that is not a child of this process.
const adbStop = 5 * time.Second

// startADB starts the server on a free port and returns when it answers. It keeps its keys under home.
func startADB(ctx context.Context, home string) (_ *adbServer, err error) {
	path, err := exec.LookPath("adb")
	if err != nil {
		return nil, exitf(exitInfrastructure, "simulated phones need adb, which is not on the PATH: install it (Debian, Ubuntu: apt install adb; macOS: brew install android-platform-tools)")
	}
	s := &adbServer{}
	if s.port, err = freePort(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	// In a process group of its own: Ctrl-C is for qgjob, and adb ends last.
	cmd := device.LifelineCommand(path, "-P", strconv.Itoa(s.port), "nodaemon", "server")
	cmd.Env = append(os.Environ(), "HOME="+home, "ADB_USB=0", "ADB_EMU=0", "ADB_MDNS=0", "ADB_LOCAL_TRANSPORT_MAX_PORT=5553")
	cmd.Dir = home
	cmd.Stdout, cmd.Stderr = &s.output, &s.output
	if s.process, err = device.StartProcess(cmd); err != nil {
		return nil, fmt.Errorf("adb server: %w", err)
	}
	if err := s.answers(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// answers waits until the server does.
func (s *adbServer) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, adbStart)
	defer cancel()
	client := adb.Client{Port: s.port}
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := client.Version(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.process.Done():
			return exitf(exitInfrastructure, "the adb server for simulated phones ended: %s", oneLine(s.output.String()))
		case <-ctx.Done():
			return exitf(exitInfrastructure, "the adb server for simulated phones does not answer: %v", err)
		case <-again.C:
		}
	}
}

// close ends the server and what it started. It is there for nobody else. Had it died, adb itself has started
// another on its port for whoever asked next: that one ends, too.
func (s *adbServer) close() error {
	s.process.Kill()
	asking, cancel := context.WithTimeout(context.Background(), adbStop)
	defer cancel()
	return adb.Client{Port: s.port}.Stop(asking)
}

// freePort finds a port of the loopback interface that nobody uses now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return l.Addr().(*net.TCPAddr).Port, l.Close()
}
