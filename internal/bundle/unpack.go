package bundle

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"github.com/klauspost/compress/zstd"

	"qgjob"
)

// maxWindow bounds the memory that a bundle can make the decompressor take.
const maxWindow = 64 << 20

// Unpack makes the directory dir, which must not exist, from the bundle that r holds, whose address must be
// wantSHA256. It trusts nothing in the bundle: a file or link that would lie or lead outside dir, a file named
// twice, and more than the limits are refused. Until it returns without error there is no dir.
func Unpack(r io.Reader, dir, wantSHA256 string) error {
	if err := qgjob.CheckSHA256("bundle", wantSHA256); err != nil {
		return err
	}
	if _, err := os.Lstat(dir); err == nil {
		return fmt.Errorf("unpack a bundle to %s: it exists", dir)
	}
	parent := filepath.Dir(filepath.Clean(dir))
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("unpack a bundle: %w", err)
	}
	staging, err := os.MkdirTemp(parent, ".unpack-")
	if err != nil {
		return fmt.Errorf("unpack a bundle: %w", err)
	}
	defer os.RemoveAll(staging)
	if err := os.Chmod(staging, 0o755); err != nil {
		return fmt.Errorf("unpack a bundle: %w", err)
	}
	sum := sha256.New()
	// Buffered, so that what the decompressor leaves unread is hashed with the rest.
	source := bufio.NewReaderSize(io.TeeReader(r, sum), 1<<16)
	extractErr := extract(source, staging)
	if _, err := io.Copy(io.Discard, source); err != nil {
		return fmt.Errorf("read the bundle: %w", err)
	}
	// Damage in transit is told as such, not as what it did to the archive.
	if got := hex.EncodeToString(sum.Sum(nil)); got != wantSHA256 {
		return qgjob.Errorf(qgjob.CodeInvalid, "the bundle is damaged: its SHA-256 is %s instead of %s", got, wantSHA256)
	}
	if extractErr != nil {
		return extractErr
	}
	if err := os.Rename(staging, dir); err != nil {
		return fmt.Errorf("unpack a bundle: %w", err)
	}
	return nil
}

// extraction is a bundle on its way into a directory, which nothing of it can leave: the directory is
// opened as a root.
type extraction struct {
	root  *os.Root
	links map[string]bool
	files int
	bytes int64
}

func extract(r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("unpack a bundle: %w", err)
	}
	defer root.Close()
	decompressor, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
	if err != nil {
		return invalid(err)
	}
	defer decompressor.Close()
	x := extraction{root: root, links: map[string]bool{}}
	// The limit is on what comes out of the decompressor, headers and all.
	archive := tar.NewReader(io.LimitReader(decompressor, MaxBytes+MaxFiles*4096))
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return invalid(err)
		}
		if err := x.add(header, archive); err != nil {
			return err
		}
	}
}

func (x *extraction) add(header *tar.Header, content io.Reader) error {
	name := header.Name
	if err := checkName(name); err != nil {
		return err
	}
	if err := x.checkAbove(name); err != nil {
		return err
	}
	if x.files++; x.files > MaxFiles {
		return tooManyFiles()
	}
	if above := path.Dir(name); above != "." {
		if err := x.root.MkdirAll(filepath.FromSlash(above), 0o755); err != nil {
			return refused(name, err)
		}
	}
	switch header.Typeflag {
	case tar.TypeReg:
		return x.file(name, header, content)
	case tar.TypeSymlink:
		if err := checkLink(name, header.Linkname); err != nil {
			return err
		}
		x.links[name] = true
		if err := x.root.Symlink(filepath.FromSlash(header.Linkname), filepath.FromSlash(name)); err != nil {
			return refused(name, err)
		}
		return nil
	}
	return qgjob.Errorf(qgjob.CodeInvalid, "the bundle holds %q, which is neither a file nor a link", name)
}

// checkAbove: nothing may lie below a link, because the checks of links count on directories being where they
// seem to be.
func (x *extraction) checkAbove(name string) error {
	for above := path.Dir(name); above != "."; above = path.Dir(above) {
		if x.links[above] {
			return qgjob.Errorf(qgjob.CodeInvalid, "the bundle holds %q below the link %q", name, above)
		}
	}
	return nil
}

func (x *extraction) file(name string, header *tar.Header, content io.Reader) error {
	if header.Size > MaxBytes-x.bytes {
		return tooManyBytes()
	}
	perm := os.FileMode(mode(os.FileMode(header.Mode)))
	file, err := x.root.OpenFile(filepath.FromSlash(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return refused(name, err)
	}
	n, err := io.Copy(file, content)
	x.bytes += n
	closeErr := file.Close()
	if _, ours := errors.AsType[*fs.PathError](err); err != nil && !ours {
		return invalid(err)
	}
	if err = errors.Join(err, closeErr); err != nil {
		return fmt.Errorf("unpack %s: %w", name, err)
	}
	return nil
}

func invalid(err error) error {
	return &qgjob.Error{Code: qgjob.CodeInvalid, Message: fmt.Sprintf("the bundle cannot be read: %v", err), Err: err}
}

// refused tells a bundle that contradicts itself from a host that cannot write.
func refused(name string, err error) error {
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
		return qgjob.Errorf(qgjob.CodeInvalid, "the bundle holds %q twice, or as a file and a directory", name)
	}
	return fmt.Errorf("unpack %s: %w", name, err)
}
