package android

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// Recordings on the device.
const (
	filmDir     = "/data/local/tmp/qgjob-film"
	filmBitRate = 1_000_000        // bits a second: a minute takes 8 MB at most
	filmProcess = "'qgjob-fil[m]'" // a pattern that does not match the shell which looks for it
	filmStop    = 10 * time.Second // from the interrupt to the end of a recording, which writes its index
	filmAgain   = 500 * time.Millisecond
	filmCopy    = 20 * time.Second // for one segment
)

// film is a recording of the screen.
type film struct {
	s      *session
	cancel context.CancelFunc
	done   chan struct{} // closed when nothing is recorded any more

	mu       sync.Mutex
	ending   bool
	segments int
	err      error
}

// Film implements device.Filmer.
func (s *session) Film(ctx context.Context) (device.Film, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	out, err := s.shell(ctx, commandTimeout, "rm -rf "+filmDir+" && mkdir -p "+filmDir) // what a worker left that died
	if err == nil && out.Code != 0 {
		err = device.Failf(qgjob.CauseHostFailed, "device %s has no place for a recording: %s", s.serial, out.Text())
	}
	if err != nil {
		return nil, err
	}
	recording, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f := &film{s: s, cancel: cancel, done: make(chan struct{})}
	go f.record(recording)
	return f, nil
}

// record records one segment after another.
func (f *film) record(ctx context.Context) {
	defer close(f.done)
	for {
		f.mu.Lock()
		if f.segments == device.FilmSegments && !f.ending {
			f.err = fmt.Errorf("the screen of device %s was recorded for its first %v only", f.s.serial, device.FilmSegments*device.FilmSegment)
		}
		if f.ending || f.segments == device.FilmSegments {
			f.mu.Unlock()
			return
		}
		f.segments++
		path := fmt.Sprintf(filmDir+"/"+device.FilmName, f.segments)
		f.mu.Unlock()
		out, err := f.s.d.client.Shell(ctx, f.s.serial, fmt.Sprintf("screenrecord --time-limit %d --bit-rate %d %s", int(device.FilmSegment.Seconds()), filmBitRate, path))
		if err == nil && out.Code != 0 {
			err = fmt.Errorf("screenrecord: %s", out.Text())
		}
		if err != nil {
			f.mu.Lock()
			if !f.ending {
				f.err = device.Failf(qgjob.CauseHostFailed, "device %s does not record its screen: %w", f.s.serial, err)
			}
			f.mu.Unlock()
			return
		}
	}
}

// End implements device.Film.
func (f *film) End(ctx context.Context, dir string) error {
	f.mu.Lock()
	f.ending = true
	f.mu.Unlock()
	if f.s.use() == nil {
		f.interrupt(ctx)
	}
	f.cancel()
	<-f.done
	errs := []error{f.err, f.s.use()}
	if dir != "" {
		for n := range f.segments {
			errs = append(errs, f.fetch(ctx, dir, fmt.Sprintf(device.FilmName, n+1)))
		}
	}
	return errors.Join(append(errs, f.s.sweepFilm(context.WithoutCancel(ctx)))...)
}

// sweepFilm removes recordings from the device.
func (s *session) sweepFilm(ctx context.Context) error {
	_, err := s.shell(ctx, filmStop, "rm -rf "+filmDir)
	return err
}

// interrupt lets the recording end in order. It may be about to begin, and is told again.
func (f *film) interrupt(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, filmStop)
	defer cancel()
	again := time.NewTicker(filmAgain)
	defer again.Stop()
	for {
		if _, err := f.s.shell(ctx, filmStop, "pkill -INT -f "+filmProcess); err != nil {
			return
		}
		select {
		case <-f.done:
			return
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// fetch copies a segment from the device; one that holds nothing is left out.
func (f *film) fetch(ctx context.Context, dir, name string) error {
	ctx, cancel := context.WithTimeout(ctx, filmCopy)
	defer cancel()
	to := filepath.Join(dir, name)
	file, err := os.Create(to)
	if err != nil {
		return err
	}
	err = f.s.copy(ctx, "cat "+filmDir+"/"+name+" 2>/dev/null", file)
	info, statErr := file.Stat()
	err = errors.Join(err, statErr, file.Close())
	if err != nil || info.Size() == 0 {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}
