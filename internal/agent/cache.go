package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

const (
	// cacheSize is how many bytes of bundles and builds are kept, about: what exceeds it goes at a worker's start and every cacheEvery.
	cacheSize  = 10 << 30
	cacheEvery = time.Hour
	// cacheRest is how long a file is kept after its last use in any case: it may be in use by another worker.
	cacheRest = 2 * time.Hour
	// leftoverAge is when an unfinished download is nobody's any more.
	leftoverAge = 24 * time.Hour
)

// cache keeps bundles and builds by their SHA-256, for all workers of a data directory. A file is there whole
// and verified, or not at all.
type cache struct {
	dir   string
	turns turns // by file name
}

// openCache opens the cache and brings it down to its size, oldest use first.
func openCache(dataDir string) (*cache, error) {
	c := &cache{dir: filepath.Join(dataDir, "cache")}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the worker's data directory cannot be used: %w", err)
	}
	c.evict(context.Background(), time.Now(), cacheRest)
	return c, nil
}

// tidy brings the cache down to its size from time to time, until ctx ends.
func (a *Agent) tidy(ctx context.Context) {
	for {
		pause(ctx, cacheEvery)
		if ctx.Err() != nil {
			return
		}
		a.hold.evict(ctx, time.Now(), max(cacheRest, a.o.Limits.Setup+a.o.Limits.Deadline))
	}
}

// evict removes what was not used for longest, but nothing that was used within rest.
func (c *cache) evict(ctx context.Context, now time.Time, rest time.Duration) {
	entries, _ := os.ReadDir(c.dir)
	var files []fs.FileInfo
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil || !info.Mode().IsRegular():
		case filepath.Ext(info.Name()) == ".part":
			if now.Sub(info.ModTime()) > leftoverAge {
				os.Remove(filepath.Join(c.dir, info.Name()))
			}
		default:
			files = append(files, info)
		}
	}
	slices.SortFunc(files, func(x, y fs.FileInfo) int { return y.ModTime().Compare(x.ModTime()) })
	var total int64
	for _, info := range files {
		total += info.Size()
		if total > cacheSize && now.Sub(info.ModTime()) > rest {
			c.remove(ctx, info)
		}
	}
}

// remove removes a file that nobody has taken into use since it was looked at.
func (c *cache) remove(ctx context.Context, seen fs.FileInfo) {
	path := filepath.Join(c.dir, seen.Name())
	done, err := c.turns.take(ctx, path)
	if err != nil {
		return
	}
	defer done()
	if info, err := os.Stat(path); err == nil && info.ModTime().Equal(seen.ModTime()) {
		os.Remove(path)
	}
}

// get returns the path of the file with the SHA-256, and calls fetch for its bytes when it is not there yet.
// The extension tells bundles from builds, and a build's format.
func (c *cache) get(ctx context.Context, sha, ext string, fetch func(context.Context) (io.ReadCloser, error)) (string, error) {
	path := filepath.Join(c.dir, sha+ext)
	done, err := c.turns.take(ctx, path)
	if err != nil {
		return "", err
	}
	defer done()
	now := time.Now()
	if err := os.Chtimes(path, now, now); err == nil {
		return path, nil
	}
	body, err := fetch(ctx)
	if err != nil {
		return "", transferFailed("%s cannot be downloaded: %w", sha, err)
	}
	defer body.Close()
	return path, c.fill(path, sha, body)
}

// put stores what pack writes, by the SHA-256 that pack returns.
func (c *cache) put(ext string, pack func(io.Writer) (sha string, err error)) (string, error) {
	part, err := os.CreateTemp(c.dir, "*.part")
	if err != nil {
		return "", hostFailed(err)
	}
	defer os.Remove(part.Name()) // fails once it has its name
	sha, err := pack(part)
	if err := errors.Join(err, part.Close()); err != nil {
		return "", err
	}
	if err := os.Rename(part.Name(), filepath.Join(c.dir, sha+ext)); err != nil {
		return "", hostFailed(err)
	}
	return sha, nil
}

// fill writes a file and gives it its name once it is known to be what it should be.
func (c *cache) fill(path, sha string, body io.Reader) error {
	part, err := os.CreateTemp(c.dir, "*.part")
	if err != nil {
		return hostFailed(err)
	}
	defer os.Remove(part.Name()) // fails once it has its name
	defer part.Close()
	hash := sha256.New()
	source := &remembering{r: body}
	if _, err := io.Copy(io.MultiWriter(part, hash), source); err != nil {
		if source.err != nil {
			return transferFailed("the download of %s broke off: %w", sha, source.err)
		}
		return hostFailed(err)
	}
	if got := hex.EncodeToString(hash.Sum(nil)); got != sha {
		return transferFailed("the download of %s arrived as %s: something between worker and server changes files", sha, got)
	}
	if err := cmp.Or(part.Sync(), part.Close()); err != nil {
		return hostFailed(err)
	}
	if err := os.Rename(part.Name(), path); err != nil {
		return hostFailed(err)
	}
	return nil
}

// holds says whether a file has the SHA-256.
func holds(path, sha string) bool {
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	hash := sha256.New()
	_, err = io.Copy(hash, file)
	return err == nil && hex.EncodeToString(hash.Sum(nil)) == sha
}

// remembering tells an error of what is read from one of what is written.
type remembering struct {
	r   io.Reader
	err error
}

func (s *remembering) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func transferFailed(format string, args ...any) error {
	return device.Failf(qgjob.CauseTransferFailed, format, args...)
}
