package android

import (
	"bytes"
	"context"
	"io"
	"regexp"
	"strings"

	"qgjob"
	"qgjob/internal/device"
)

// logMark is a time of the device's own clock, as logcat takes it.
var logMark = regexp.MustCompile(`^\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$`)

// MarkLog implements device.Chronicler. The log is everybody's: it is never cleared, but read from a time on.
func (s *session) MarkLog(ctx context.Context) (string, error) {
	if err := s.use(); err != nil {
		return "", err
	}
	out, err := s.shell(ctx, commandTimeout, "date '+%m-%d %H:%M:%S.000'")
	if err != nil {
		return "", err
	}
	mark := strings.TrimSpace(out.Stdout)
	if !logMark.MatchString(mark) {
		return "", device.Failf(qgjob.CauseHostFailed, "device %s tells the time as %.60q", s.serial, out.Text())
	}
	return mark, nil
}

// LogSince implements device.Chronicler.
func (s *session) LogSince(ctx context.Context, mark string, w io.Writer) error {
	if err := s.use(); err != nil {
		return err
	}
	if !logMark.MatchString(mark) {
		return device.Failf(qgjob.CauseHostFailed, "%q is no mark of a device's log", mark)
	}
	return s.copy(ctx, "logcat -d -v threadtime -T '"+mark+"'", w)
}

// pngHeader begins every PNG (PNG specification, section 5.2).
var pngHeader = []byte("\x89PNG\r\n\x1a\n")

// Screen implements device.Screener.
func (s *session) Screen(ctx context.Context, w io.Writer) error {
	if err := s.use(); err != nil {
		return err
	}
	var picture bytes.Buffer
	if err := s.copy(ctx, "screencap -p", &picture); err != nil {
		return err
	}
	if !bytes.HasPrefix(picture.Bytes(), pngHeader) {
		return device.Failf(qgjob.CauseHostFailed, "device %s gives no picture of its screen: %.200q", s.serial, picture.Bytes())
	}
	_, err := picture.WriteTo(w)
	return err
}

// copy writes what a command on the device prints.
func (s *session) copy(ctx context.Context, command string, w io.Writer) error {
	asking, cancel := s.bounded(ctx, commandTimeout, command)
	defer cancel()
	conn, err := s.d.client.Exec(asking, s.serial, command)
	if err != nil {
		return s.explain(ctx, command, err)
	}
	defer conn.Close()
	if _, err := io.Copy(w, conn); err != nil {
		return s.explain(ctx, command, err)
	}
	return nil
}
