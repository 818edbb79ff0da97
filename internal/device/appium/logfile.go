package appium

import (
	"errors"
	"io/fs"
	"os"
)

// logLimit is how large a server's log may grow before it is moved to <path>.1.
const logLimit = 16 << 20

// logFile is a file that keeps between one and two limits of what was last written. One goroutine writes.
type logFile struct {
	path  string
	file  *os.File
	size  int64
	limit int64
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path, limit: logLimit}
	return l, l.open()
}

func (l *logFile) open() error {
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return err
	}
	l.file, l.size = file, info.Size()
	return nil
}

// Write never fails for the writer's sake: a full disk costs the log, not the server that it is of.
func (l *logFile) Write(p []byte) (int, error) {
	if l.size > l.limit {
		l.rotate()
	}
	n, _ := l.file.Write(p)
	l.size += int64(n)
	return len(p), nil
}

func (l *logFile) rotate() {
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	old := l.file
	if err := l.open(); err == nil {
		old.Close()
	}
}

func (l *logFile) Close() error { return l.file.Close() }
