package ios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// filming is how a screen is recorded, and within what bounds.
type filming struct {
	segment  time.Duration // how long a file is
	segments int           // of one attempt
	start    time.Duration // until simctl says that it records
	stop     time.Duration // from the interrupt to the end of a recording, which is written then
}

// defaultFilming waits long for a recording to end: one that is killed is lost, and the host may record no other one then
// (https://github.com/callstack/agent-device/issues/2170).
var defaultFilming = filming{segment: device.FilmSegment, segments: device.FilmSegments, start: 5 * time.Second, stop: 20 * time.Second}

var _ device.Filmer = (*simulatorSession)(nil)

// film is a recording of a simulator's screen, one segment after another, each by a simctl of its own.
type film struct {
	filming
	simulator *simulator
	dir       string        // of this host, with the segments
	ending    chan struct{} // closed by End
	late      chan struct{} // closed by End when nobody waits any more
	done      chan struct{} // closed when nothing is recorded any more

	kept []string // names of the segments in dir; valid when done is closed
	err  error    // valid when done is closed
}

// segment is a running simctl.
type segment struct {
	*device.Process
	name   string
	output announcement
}

// announcement is a program's output, and says when simctl announces in it that it records. An interrupt before that is lost, and so is the recording.
type announcement struct {
	text bytes.Buffer // complete when the program has ended
	made chan struct{}
	once sync.Once
}

func (a *announcement) Write(b []byte) (int, error) {
	n, err := a.text.Write(b)
	if bytes.Contains(a.text.Bytes(), []byte("Recording started")) {
		a.once.Do(func() { close(a.made) })
	}
	return n, err
}

// Film implements device.Filmer.
func (s *simulatorSession) Film(ctx context.Context) (device.Film, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.dir, "film") // with what a worker left that died
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "there is no place for a recording: %w", err)
	}
	f := &film{filming: s.d.filming, simulator: s.simulator, dir: dir, ending: make(chan struct{}), late: make(chan struct{}), done: make(chan struct{})}
	first, err := f.begin(1)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	go f.record(first)
	f.await(first, ctx.Done())
	return f, nil
}

// begin starts the recording of a segment.
func (f *film) begin(number int) (*segment, error) {
	xcrun, err := f.simulator.find("xcrun")
	if err != nil {
		return nil, err
	}
	s := &segment{name: fmt.Sprintf(device.FilmName, number), output: announcement{made: make(chan struct{})}}
	cmd := device.LifelineCommand(xcrun, "simctl", "io", f.simulator.udid, "recordVideo", "--codec=h264", "--force", filepath.Join(f.dir, s.name))
	cmd.Env, cmd.Stdout, cmd.Stderr = f.simulator.environment(), &s.output, &s.output
	if s.Process, err = device.StartProcess(cmd); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "the recording of simulator %s cannot be started: %w", f.simulator.udid, err)
	}
	return s, nil
}

// await returns when a segment is recorded, has ended, or takes too long to begin.
func (f *film) await(s *segment, enough <-chan struct{}) {
	late := time.NewTimer(f.start)
	defer late.Stop()
	select {
	case <-s.output.made:
	case <-s.Done():
	case <-late.C:
	case <-enough:
	}
}

// record records one segment after another.
func (f *film) record(s *segment) {
	defer close(f.done)
	for number := 1; ; {
		full := time.NewTimer(f.segment)
		ended := false
		select {
		case <-s.Done():
		case <-full.C:
		case <-f.ending:
			ended = true
		}
		full.Stop()
		if f.err = f.finish(s); f.err != nil || ended {
			return
		}
		if number++; number > f.segments {
			f.err = fmt.Errorf("the screen of simulator %s was recorded for its first %v only", f.simulator.udid, time.Duration(f.segments)*f.segment)
			return
		}
		if s, f.err = f.begin(number); f.err != nil {
			return
		}
	}
}

// finish ends a segment, and keeps it when it is whole: simctl writes it after the interrupt. What simctl's exit code is then does not matter.
func (f *film) finish(s *segment) error {
	early := s.Gone()
	if !early {
		f.await(s, f.late)
		s.Signal(syscall.SIGINT)
		patience := time.NewTimer(f.stop)
		defer patience.Stop()
		select {
		case <-s.Done():
		case <-patience.C:
			s.Kill()
			return device.Failf(qgjob.CauseHostFailed, "the recording of simulator %s does not end", f.simulator.udid)
		case <-f.late:
			s.Kill()
			return device.Failf(qgjob.CauseHostFailed, "the recording of simulator %s does not end in time", f.simulator.udid)
		}
	}
	info, err := os.Stat(filepath.Join(f.dir, s.name))
	whole := err == nil && info.Size() > 0 && (s.Err() == nil || !early && !s.killed()) // simctl makes an empty file when it begins
	if whole {
		f.kept = append(f.kept, s.name)
	}
	if early || !whole {
		return device.Failf(qgjob.CauseHostFailed, "simulator %s does not record its screen: %s", f.simulator.udid, strings.TrimSpace(s.output.text.String()))
	}
	return nil
}

// killed says whether a signal ended a segment that was not the interrupt.
func (s *segment) killed() bool {
	exit, ok := errors.AsType[*exec.ExitError](s.Err())
	if !ok {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() != syscall.SIGINT
}

// End implements device.Film.
func (f *film) End(ctx context.Context, dir string) error {
	close(f.ending)
	select {
	case <-f.done:
	case <-ctx.Done():
		close(f.late)
		<-f.done
	}
	errs := []error{f.err}
	for _, name := range f.kept {
		if dir != "" {
			errs = append(errs, os.Rename(filepath.Join(f.dir, name), filepath.Join(dir, name))) // both are in the worker's data directory
		}
	}
	return errors.Join(append(errs, os.RemoveAll(f.dir))...)
}
