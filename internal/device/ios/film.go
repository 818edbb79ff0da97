package ios

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

const (
	filmStart = 5 * time.Second  // until simctl says that it records
	filmStop  = 10 * time.Second // from the interrupt to the end of a recording, which writes its index
	filmName  = "video-01.mp4"   // a simulator's recording is one file
)

var _ device.Filmer = (*simulatorSession)(nil)

// film is a recording of a simulator's screen by simctl.
type film struct {
	*device.Process
	udid   string
	dir    string // of this host, with the recording
	output firstWords
}

// firstWords is a program's output, and says when it begins. simctl announces that it records; an interrupt before that leaves no recording.
type firstWords struct {
	text  bytes.Buffer  // complete when the program has ended
	begun chan struct{} // closed by the first words
	once  sync.Once
}

func (w *firstWords) Write(b []byte) (int, error) {
	defer w.once.Do(func() { close(w.begun) })
	return w.text.Write(b)
}

// Film implements device.Filmer.
func (s *simulatorSession) Film(ctx context.Context) (device.Film, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	xcrun, err := s.simulator.find("xcrun")
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "film") // with what a worker left that died
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "there is no place for a recording: %w", err)
	}
	f := &film{udid: s.simulator.udid, dir: dir, output: firstWords{begun: make(chan struct{})}}
	cmd := device.LifelineCommand(xcrun, "simctl", "io", f.udid, "recordVideo", "--codec=h264", "--force", filepath.Join(dir, filmName))
	cmd.Env, cmd.Stdout, cmd.Stderr = s.simulator.environment(), &f.output, &f.output
	if f.Process, err = device.StartProcess(cmd); err != nil {
		os.RemoveAll(dir)
		return nil, device.Failf(qgjob.CauseHostFailed, "the recording of simulator %s cannot be started: %w", f.udid, err)
	}
	late := time.NewTimer(filmStart)
	defer late.Stop()
	select {
	case <-f.output.begun:
	case <-f.Done():
	case <-late.C:
	case <-ctx.Done():
	}
	return f, nil
}

// End implements device.Film.
func (f *film) End(ctx context.Context, dir string) error {
	defer os.RemoveAll(f.dir)
	early := f.Gone()
	f.Signal(syscall.SIGINT)
	patience, cancel := context.WithTimeout(ctx, filmStop)
	defer cancel()
	select {
	case <-f.Done():
	case <-patience.Done():
		f.Kill()
		return device.Failf(qgjob.CauseHostFailed, "the recording of simulator %s does not end", f.udid)
	}
	if early || f.Err() != nil {
		return device.Failf(qgjob.CauseHostFailed, "simulator %s does not record its screen: %s", f.udid, strings.TrimSpace(f.output.text.String()))
	}
	if dir == "" {
		return nil
	}
	return os.Rename(filepath.Join(f.dir, filmName), filepath.Join(dir, filmName)) // both are in the worker's data directory
}
