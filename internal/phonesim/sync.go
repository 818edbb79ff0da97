package phonesim

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"
)

// Limits of adb's sync protocol: packages/modules/adb/SYNC.TXT of the Android sources.
const (
	maxSyncPath  = 1024
	maxSyncChunk = 64 << 10
)

// syncSession serves the file transfers of one stream.
type syncSession struct {
	phone *Phone
	s     *stream
}

// serveSync handles requests until the other side quits or breaks the protocol.
func (p *Phone) serveSync(s *stream) {
	ss := syncSession{p, s}
	for {
		id, n, err := ss.header()
		if err != nil || id == "QUIT" {
			return
		}
		if n > maxSyncPath {
			_ = ss.fail("path too long")
			return
		}
		name := make([]byte, n)
		if _, err := io.ReadFull(s, name); err != nil {
			return
		}
		switch id {
		case "STAT":
			err = ss.stat(string(name))
		case "LIST":
			err = ss.list(string(name))
		case "SEND":
			err = ss.receive(string(name))
		case "RECV":
			err = ss.send(string(name))
		default:
			_ = ss.fail("unknown request " + strconv.Quote(id))
			return
		}
		if err != nil {
			p.log.Debug("sync ended", "request", id, "error", err)
			return
		}
	}
}

func (ss syncSession) header() (id string, n uint32, err error) {
	var b [8]byte
	if _, err := io.ReadFull(ss.s, b[:]); err != nil {
		return "", 0, err
	}
	return string(b[:4]), binary.LittleEndian.Uint32(b[4:]), nil
}

func (ss syncSession) write(id string, parts ...[]byte) error {
	_, err := ss.s.Write(append([]byte(id), bytes.Join(parts, nil)...))
	return err
}

func (ss syncSession) fail(message string) error {
	return ss.write("FAIL", le32(uint32(len(message))), []byte(message))
}

func (ss syncSession) lookup(name string) (file, bool) {
	ss.phone.mu.Lock()
	defer ss.phone.mu.Unlock()
	return ss.phone.stat(name)
}

func (ss syncSession) stat(name string) error {
	f, ok := ss.lookup(name)
	if !ok {
		return ss.write("STAT", le32(0, 0, 0))
	}
	return ss.write("STAT", le32(f.mode, uint32(len(f.content)), uint32(f.modified.Unix())))
}

func (ss syncSession) list(name string) error {
	ss.phone.mu.Lock()
	var b bytes.Buffer
	for _, inner := range ss.phone.list(name) {
		f, _ := ss.phone.stat(path.Join(name, inner))
		b.WriteString("DENT")
		b.Write(le32(f.mode, uint32(len(f.content)), uint32(f.modified.Unix()), uint32(len(inner))))
		b.WriteString(inner)
	}
	ss.phone.mu.Unlock()
	return ss.write("", b.Bytes(), []byte("DONE"), make([]byte, 16))
}

// send sends a file to the other side.
func (ss syncSession) send(name string) error {
	content, err := ss.phone.readFile(name)
	if err != nil {
		return ss.fail(err.Error())
	}
	for len(content) > 0 {
		n := min(len(content), maxSyncChunk)
		if err := ss.write("DATA", le32(uint32(n)), content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	return ss.write("DONE", le32(0))
}

// receive takes a file from the other side. The target is a path, a comma and the file's mode in decimal.
func (ss syncSession) receive(target string) error {
	name, modeText, _ := cutLast(target, ",")
	mode, err := strconv.ParseUint(modeText, 10, 32)
	if err != nil {
		return ss.fail("bad mode " + strconv.Quote(modeText))
	}
	var content bytes.Buffer
	for {
		id, n, err := ss.header()
		if err != nil {
			return err
		}
		switch {
		case id == "DONE":
			if refusal := ss.refuse(name); refusal != "" {
				return ss.fail(refusal)
			}
			ss.phone.mu.Lock()
			ss.phone.files[path.Clean("/"+name)] = file{content: content.Bytes(), mode: modeRegular&modeKind | uint32(mode)&0o777, modified: time.Unix(int64(n), 0)}
			ss.phone.mu.Unlock()
			return ss.write("OKAY", le32(0))
		case id != "DATA" || n > maxSyncChunk:
			return fmt.Errorf("sync: unexpected %q of %d bytes", id, n)
		case content.Len()+int(n) > maxAPK:
			return ss.fail("No space left on device")
		}
		if _, err := io.CopyN(&content, ss.s, int64(n)); err != nil {
			return err
		}
	}
}

// refuse says why a file cannot be written there, "" when it can.
func (ss syncSession) refuse(name string) string {
	f, exists := ss.lookup(name)
	switch {
	case exists && f.mode&modeKind == modeDirectory&modeKind:
		return "couldn't create file: Is a directory"
	case !strings.HasPrefix(path.Clean("/"+name), "/data/local/tmp/") && !strings.HasPrefix(path.Clean("/"+name), "/sdcard/") &&
		!strings.HasPrefix(path.Clean("/"+name), "/storage/"):
		return "couldn't create file: Permission denied"
	}
	return ""
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
