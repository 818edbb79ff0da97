package agent

import (
	"archive/zip"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
	"qgjob/internal/tail"
)

const (
	// chronicleTime bounds what is asked of a device for its log and its screen.
	chronicleTime = 15 * time.Second
	// maxStretch is how much of a log, Appium's or the device's, is kept of an attempt: its end.
	maxStretch = 16 << 20
)

// stretch is the part of a growing file that is written while an attempt runs.
type stretch struct {
	path string
	from int64
}

func beginStretch(path string) stretch {
	info, err := os.Stat(path)
	if err != nil {
		return stretch{path: path}
	}
	return stretch{path, info.Size()}
}

// save copies the stretch, or what is left of it when the file was begun anew meanwhile.
func (s stretch) save(to string) error {
	file, err := os.Open(s.path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	from := s.from
	if info.Size() < from {
		from = 0
	}
	text := bufio.NewReader(io.NewSectionReader(file, from, info.Size()-from))
	if over := info.Size() - maxStretch; over > from { // the rest of a line that is cut may hold half a secret, which cannot be masked
		text.Reset(io.NewSectionReader(file, over, maxStretch))
		for more := bufio.ErrBufferFull; errors.Is(more, bufio.ErrBufferFull); {
			_, more = text.ReadSlice('\n')
		}
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, text)
	return errors.Join(err, out.Close())
}

// chronicle gathers what an attempt leaves besides the runner's files: Appium's log and the device's own, and
// its screen when the test did not pass. What cannot be had is left out: it must not spoil an attempt.
type chronicle struct {
	session device.Session
	appium  stretch
	app     string // package of the app under test
	mark    string // of the device's log; "" when it could not be had
	film    device.Film
	video   qgjob.Video
	waste   bool // nobody wants the recording
}

// filmTime bounds the end of a recording and its way from the device.
const filmTime = 30 * time.Second

// record begins to record the screen, where that is asked for and the device can.
func (c *chronicle) record(ctx context.Context, video qgjob.Video) error {
	filmer, ok := c.session.(device.Filmer)
	if video == qgjob.VideoOff || !ok {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, chronicleTime)
	defer cancel()
	film, err := filmer.Film(bounded)
	c.film, c.video = film, video
	return err
}

// cut ends the recording and keeps it in a directory, if there is one.
func (c *chronicle) cut(ctx context.Context, dir string) error {
	if c.film == nil {
		return nil
	}
	film := c.film
	c.film = nil
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), filmTime)
	defer cancel()
	return film.End(ctx, dir)
}

// begin notes where the logs are now.
func (c *chronicle) begin(ctx context.Context, session device.Session) {
	c.session = session
	if l, ok := session.(device.Chronicler); ok {
		bounded, cancel := context.WithTimeout(ctx, chronicleTime)
		defer cancel()
		c.mark, _ = l.MarkLog(bounded)
	}
}

// end writes the files into a directory.
func (c *chronicle) end(ctx context.Context, dir string, passed bool) error {
	var errs []error
	if c.appium.path != "" {
		errs = append(errs, c.appium.save(filepath.Join(dir, qgjob.ArtifactAppiumLog)))
	}
	kept := dir
	if c.waste || passed && c.video == qgjob.VideoRetainOnFailure {
		kept = ""
	}
	errs = append(errs, c.cut(ctx, kept))
	bounded, cancel := context.WithTimeout(ctx, chronicleTime)
	defer cancel()
	if s, ok := c.session.(device.Screener); ok && !passed { // before the log, which may take all of the time
		errs = append(errs, toFile(filepath.Join(dir, qgjob.ArtifactScreen), func(w io.Writer) error { return s.Screen(bounded, w) }))
	}
	if l, ok := c.session.(device.Chronicler); ok && c.mark != "" {
		log := tail.Writer{Limit: maxStretch}
		err := l.LogSince(bounded, c.mark, &log)
		// Of a log that breaks off, what came before is kept. Half a secret cannot be masked: lines are whole.
		errs = append(errs, err, os.WriteFile(filepath.Join(dir, qgjob.ArtifactDeviceLog), log.Lines(err != nil), 0o600))
	}
	return errors.Join(errs...)
}

// gone asks a device whose log does not tell of crashes what became of the app.
func (c *chronicle) gone(ctx context.Context) string {
	witness, ok := c.session.(device.Witness)
	if !ok {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, chronicleTime)
	defer cancel()
	words, _ := witness.Gone(ctx) // a device that does not tell is examined elsewhere
	return words
}

// crash reads the device's log of an attempt for a crash of the app, as Android's runtime tells it, and returns its
// words; "" when there was none.
func crash(log, pkg string) string {
	data, err := os.ReadFile(log)
	if err != nil || pkg == "" {
		return ""
	}
	fatal, ours, words := false, false, []string(nil)
	for line := range strings.Lines(string(data)) {
		_, text, ok := strings.Cut(line, " AndroidRuntime: ")
		if !ok {
			if ours {
				break
			}
			continue
		}
		text = strings.TrimSpace(text)
		switch {
		case strings.HasPrefix(text, "FATAL EXCEPTION"):
			if ours {
				return strings.Join(words, " | ")
			}
			fatal = true
		case fatal && strings.HasPrefix(text, "Process: "):
			ours = strings.HasPrefix(text, "Process: "+pkg+",")
		case ours && len(words) < crashLines:
			words = append(words, text)
		}
	}
	return strings.Join(words, " | ")
}

// crashLines is how much of a crash is told: the exception, and where it came from.
const crashLines = 2

// toFile writes a file, or none.
func toFile(path string, write func(io.Writer) error) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	err = write(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

func describe(path string) (api.File, error) {
	file, err := os.Open(path)
	if err != nil {
		return api.File{}, err
	}
	defer file.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, file)
	return api.File{SHA256: hex.EncodeToString(sum.Sum(nil)), Size: size, Open: func() (io.ReadCloser, error) { return os.Open(path) }}, err
}

// gather returns what is to be kept of a directory, by name: its files, the one file of the blob report, and the
// tests' own output as a zip.
func gather(dir string) (map[string]string, error) {
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return files, nil
	}
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch {
		case e.Type().IsRegular():
			if info, err := e.Info(); err == nil && info.Size() > 0 && qgjob.CheckArtifactName(e.Name()) == nil {
				files[e.Name()] = path
			}
		case e.Name() == "blob-report":
			if found, _ := filepath.Glob(filepath.Join(path, "*.zip")); len(found) == 1 {
				files[qgjob.ArtifactBlobReport] = found[0]
			}
		case e.Name() == "test-results":
			packed := filepath.Join(dir, qgjob.ArtifactTestResults)
			switch n, err := zipDir(packed, path); {
			case err != nil:
				errs = append(errs, err)
			case n > 0:
				files[qgjob.ArtifactTestResults] = packed
			}
		}
	}
	return files, errors.Join(errs...)
}

// zipDir packs the regular files of a directory and returns how many there were.
func zipDir(to, dir string) (n int, err error) {
	out, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	defer out.Close()
	z := zip.NewWriter(out)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, err
	}
	defer root.Close()
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || e.Name() == ".last-run.json" { // Playwright's own note
			return err
		}
		in, err := root.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		w, err := z.Create(path)
		if err != nil {
			return err
		}
		n++
		_, err = io.Copy(w, in)
		return err
	})
	return n, errors.Join(err, z.Close())
}
