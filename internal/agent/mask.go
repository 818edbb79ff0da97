package agent

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"qgjob"
	"qgjob/internal/appwright"
)

// masked stands for a secret.
const masked = "***"

// mask hides secrets in what an attempt says and leaves: their values as they are, line by line, and as JSON (also within JSON),
// XML, URLs, Base64 (wherever in what is encoded) and Appium's log of typed text write them. The zero value hides nothing.
type mask struct {
	needles [][]byte // longest first
	begins  [256]bool
}

func newMask(secrets []string) *mask {
	m := &mask{}
	for _, secret := range secrets {
		m.add(secret)
		for line := range strings.Lines(secret) {
			m.add(line)
		}
	}
	slices.SortFunc(m.needles, func(a, b []byte) int { return len(b) - len(a) })
	m.needles = slices.CompactFunc(m.needles, bytes.Equal)
	for _, n := range m.needles {
		m.begins[n[0]] = true
	}
	return m
}

func (m *mask) add(secret string) {
	secret = strings.TrimSpace(secret)
	if len([]rune(secret)) < qgjob.MinSecret {
		return
	}
	for _, form := range forms(secret) {
		if len(form) >= qgjob.MinSecret {
			m.needles = append(m.needles, []byte(form))
		}
	}
}

// forms are the ways in which a secret is written.
func forms(secret string) []string {
	all := []string{secret, html.EscapeString(secret), typed(secret)}
	for _, escaped := range []string{inJSON(secret, false), inJSON(secret, true)} {
		all = append(all, escaped, inJSON(escaped, false))
	}
	for _, escaped := range []string{url.QueryEscape(secret), url.PathEscape(secret), component(secret)} {
		all = append(all, escaped, lowerHex.ReplaceAllStringFunc(escaped, strings.ToLower))
	}
	for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			all = append(all, within(encoding, secret, before))
		}
	}
	return all
}

// typed is a text as Appium logs one that it types: a JSON list of its characters.
func typed(s string) string {
	var characters []string
	for _, r := range s {
		characters = append(characters, `"`+inJSON(string(r), false)+`"`)
	}
	return strings.Join(characters, ",")
}

var (
	lowerHex = regexp.MustCompile(`%[0-9A-F]{2}`)
	// unescaped are the bytes that JavaScript's encodeURIComponent leaves as they are, beside letters and digits.
	unescaped = "-_.!~*'()"
)

// component is a text as JavaScript's encodeURIComponent writes it.
func component(s string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || strings.IndexByte(unescaped, b) >= 0 {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

// within is what Base64 makes of a text behind so many bytes of others, without the characters that also depend on its
// neighbours.
func within(encoding *base64.Encoding, s string, before int) string {
	encoded := encoding.EncodeToString(append(make([]byte, before), s...))
	return encoded[(before*8+5)/6 : (before+len(s))*8/6]
}

// inJSON is a text as it stands between quotes in JSON.
func inJSON(s string, forHTML bool) string {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(forHTML)
	if err := e.Encode(s); err != nil {
		panic(err) // of a string
	}
	return out.String()[1 : out.Len()-2]
}

func (m *mask) text(s string) string {
	if len(m.needles) == 0 {
		return s
	}
	out, _, _ := m.replace(nil, []byte(s), true)
	return string(out)
}

// clipped masks a text that may have been cut off, also the beginning of a secret where it was.
func (m *mask) clipped(s string) string {
	before, cut := strings.CutSuffix(s, appwright.CutOff)
	if !cut {
		return m.text(s)
	}
	for i := max(0, len(before)-len(m.needles[0])); i <= len(before)-qgjob.MinSecret; i++ {
		if slices.ContainsFunc(m.needles, func(n []byte) bool { return strings.HasPrefix(string(n), before[i:]) }) {
			return strings.TrimSuffix(m.clipped(before[:i]+appwright.CutOff), appwright.CutOff) + masked + appwright.CutOff
		}
	}
	return m.text(before) + appwright.CutOff
}

// replace appends text to out with its secrets masked. Unless it is the end, the last bytes are left over that could
// be the beginning of a secret.
func (m *mask) replace(out, text []byte, end bool) (masks []byte, left []byte, found int) {
next:
	for i := 0; i < len(text); {
		if !m.begins[text[i]] {
			out = append(out, text[i])
			i++
			continue
		}
		rest := text[i:]
		for _, n := range m.needles {
			if !end && len(n) > len(rest) && bytes.HasPrefix(n, rest) {
				return out, rest, found
			}
			if bytes.HasPrefix(rest, n) {
				length, open := m.stretch(rest, len(n), end)
				if open {
					return out, rest, found
				}
				out = append(out, masked...)
				i += length
				found++
				continue next
			}
		}
		out = append(out, text[i])
		i++
	}
	return out, nil, found
}

// stretch is how long a secret at the start of text is with those that begin in it and reach further. Unless it is the end, it is open where one of
// them may go on.
func (m *mask) stretch(text []byte, length int, end bool) (whole int, open bool) {
	for i := 1; i < length; i++ {
		if !m.begins[text[i]] {
			continue
		}
		rest := text[i:]
		for _, n := range m.needles {
			if !end && len(n) > len(rest) && bytes.HasPrefix(n, rest) {
				return 0, true
			}
			if i+len(n) > length && bytes.HasPrefix(rest, n) {
				length = i + len(n)
				break
			}
		}
	}
	return length, false
}

// result masks all that a result says.
func (m *mask) result(r *qgjob.Result) {
	if len(m.needles) == 0 {
		return
	}
	r.Message = m.clipped(r.Message)
	r.Report.Tests = slices.Clone(r.Report.Tests)
	for i := range r.Report.Tests {
		t := &r.Report.Tests[i]
		t.Title, t.Error, t.File = m.text(t.Title), m.clipped(t.Error), m.text(t.File)
	}
}

// maskedWriter masks what goes through it. Several goroutines may write.
type maskedWriter struct {
	*mask
	to io.Writer

	mu    sync.Mutex
	left  []byte // could be the beginning of a secret
	found int
}

func (w *maskedWriter) Write(p []byte) (int, error) {
	if len(w.needles) == 0 {
		return w.to.Write(p)
	}
	return len(p), w.put(p, false)
}

// Flush writes what was left over.
func (w *maskedWriter) Flush() error { return w.put(nil, true) }

func (w *maskedWriter) put(p []byte, end bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	out, left, found := w.replace(nil, append(w.left, p...), end)
	w.left = slices.Clone(left)
	w.found += found
	if len(out) == 0 {
		return nil
	}
	_, err := w.to.Write(out)
	return err
}

// zipDepth is how deep zips within zips are looked into: Playwright's blob report holds traces.
const zipDepth = 3

// files masks every file below a directory, and what zips hold. One that cannot be masked is removed.
func (m *mask) files(dir string) error {
	if len(m.needles) == 0 {
		return nil
	}
	var errs []error
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if _, err := m.file(path, zipDepth); err != nil {
			errs = append(errs, err, os.Remove(path))
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(append(errs, err)...)
}

// file masks one file in its place.
func (m *mask) file(path string, depth int) (found int, err error) {
	if strings.HasSuffix(path, ".zip") {
		return m.zip(path, depth)
	}
	in, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer in.Close()
	return m.rewrite(path, func(out io.Writer) (found int, err error) {
		w := &maskedWriter{mask: m, to: out}
		_, err = io.Copy(w, in)
		return w.found, errors.Join(err, w.Flush())
	})
}

// zip masks the entries of a zip. One that cannot be read, as one that was cut off, cannot be masked.
func (m *mask) zip(path string, depth int) (found int, err error) {
	if depth == 0 {
		return 0, fmt.Errorf("%s: there are zips within zips within zips", filepath.Base(path))
	}
	in, err := zip.OpenReader(path)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	defer in.Close()
	return m.rewrite(path, func(out io.Writer) (found int, err error) {
		z := zip.NewWriter(out)
		for _, entry := range in.File {
			n, err := m.entry(z, entry, filepath.Dir(path), depth-1)
			if err != nil {
				return 0, err
			}
			found += n
		}
		return found, z.Close()
	})
}

// entry copies one entry of a zip, masked, by way of a file.
func (m *mask) entry(z *zip.Writer, entry *zip.File, dir string, depth int) (found int, err error) {
	header := zip.FileHeader{Name: m.text(entry.Name), Method: entry.Method, Modified: entry.Modified}
	header.SetMode(entry.Mode())
	out, err := z.CreateHeader(&header)
	if err != nil || entry.FileInfo().IsDir() {
		return 0, err
	}
	in, err := entry.Open()
	if err != nil {
		return 0, err
	}
	defer in.Close()
	if !strings.HasSuffix(entry.Name, ".zip") {
		w := &maskedWriter{mask: m, to: out}
		_, err := io.Copy(w, in)
		return w.found, errors.Join(err, w.Flush())
	}
	inner, err := os.CreateTemp(dir, "masking-*.zip")
	if err != nil {
		return 0, err
	}
	defer os.Remove(inner.Name())
	_, err = io.Copy(inner, in)
	if err = errors.Join(err, inner.Close()); err != nil {
		return 0, err
	}
	if found, err = m.file(inner.Name(), depth); err != nil {
		return 0, err
	}
	file, err := os.Open(inner.Name())
	if err != nil {
		return 0, err
	}
	defer file.Close()
	_, err = io.Copy(out, file)
	return found, err
}

// rewrite replaces a file by what write makes of it, when that found something to mask.
func (m *mask) rewrite(path string, write func(io.Writer) (found int, err error)) (found int, err error) {
	out, err := os.CreateTemp(filepath.Dir(path), ".masking-*")
	if err != nil {
		return 0, err
	}
	defer os.Remove(out.Name())
	found, err = write(out)
	if err = errors.Join(err, out.Close()); err != nil || found == 0 {
		return 0, err
	}
	return found, os.Rename(out.Name(), path)
}
