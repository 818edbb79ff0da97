package phonesim

import (
	"bytes"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// file is a file or directory on the phone.
type file struct {
	content  []byte
	mode     uint32 // as stat tells it, with the kind of file
	modified time.Time
}

const (
	modeDirectory = 0o040755
	modeRegular   = 0o100644
	modeKind      = 0o170000
)

// fileError is why a file cannot be read, in the words that Android prints.
type fileError string

func (e fileError) Error() string { return string(e) }

const (
	errNoFile      = fileError("No such file or directory")
	errIsDirectory = fileError("Is a directory")
)

// folders are there on every phone.
var folders = []string{
	"/", "/data", "/data/app", "/data/local", "/data/local/tmp", "/mnt", "/proc", "/sdcard", "/sdcard/Android", "/sdcard/Download", "/storage",
	"/storage/emulated", "/storage/emulated/0", "/system", "/system/app", "/system/bin",
}

// stat returns a file or directory by its absolute path. It is called with the phone's lock held.
func (p *Phone) stat(name string) (file, bool) {
	name = path.Clean("/" + name)
	if f, ok := p.files[name]; ok {
		return f, true
	}
	if slices.Contains(folders, name) {
		return file{mode: modeDirectory, modified: p.ledger.StartedAt}, true
	}
	for _, pkg := range p.packages {
		if at := pkg.apkPath(); at == name {
			return file{content: pkg.content, mode: modeRegular, modified: pkg.lastUpdate}, true
		} else if strings.HasPrefix(at, name+"/") {
			return file{mode: modeDirectory, modified: pkg.lastUpdate}, true
		}
	}
	for other, f := range p.files {
		if strings.HasPrefix(other, name+"/") {
			return file{mode: modeDirectory, modified: f.modified}, true
		}
	}
	return file{}, false
}

// list returns the names in a directory. It is called with the phone's lock held.
func (p *Phone) list(name string) []string {
	prefix := strings.TrimSuffix(path.Clean("/"+name), "/") + "/"
	names := map[string]bool{}
	add := func(other string) {
		if rest, ok := strings.CutPrefix(other, prefix); ok && rest != "" {
			first, _, _ := strings.Cut(rest, "/")
			names[first] = true
		}
	}
	for other := range p.files {
		add(other)
	}
	for _, other := range folders {
		add(other)
	}
	for _, pkg := range p.packages {
		add(pkg.apkPath())
	}
	return sortedKeys(names)
}

func (p *Phone) readFile(name string) ([]byte, error) {
	if name == "/dev/null" {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.stat(name)
	switch {
	case !ok:
		return nil, errNoFile
	case f.mode&modeKind == modeDirectory&modeKind:
		return nil, errIsDirectory
	}
	return f.content, nil
}

func (p *Phone) writeFile(name string, content []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files[path.Clean("/"+name)] = file{content: content, mode: modeRegular, modified: time.Now()}
}

// readExactly reads n bytes, growing with what really comes.
func readExactly(r io.Reader, n int64) ([]byte, error) {
	var b bytes.Buffer
	if _, err := io.CopyN(&b, r, n); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func shellLS(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	names := c.operands()
	if len(names) == 0 {
		names = []string{"/"}
	}
	code := 0
	for _, name := range names {
		f, ok := p.stat(name)
		switch {
		case !ok:
			code = c.fail("ls: %s: %v", name, errNoFile)
		case f.mode&modeKind != modeDirectory&modeKind:
			c.listed(name, f)
		default:
			for _, inner := range p.list(name) {
				g, _ := p.stat(path.Join(name, inner))
				c.listed(inner, g)
			}
		}
	}
	return code
}

func (c *call) listed(name string, f file) {
	if !c.has("-l") && !c.has("-la") && !c.has("-al") {
		c.printf("%s\n", name)
		return
	}
	kind := "-rw-r--r--"
	if f.mode&modeKind == modeDirectory&modeKind {
		kind = "drwxr-xr-x"
	}
	c.printf("%s 1 shell shell %d %s %s\n", kind, len(f.content), f.modified.UTC().Format("2006-01-02 15:04"), name)
}

func shellStat(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	format, _ := c.option("-c")
	name := c.last()
	f, ok := p.stat(name)
	if !ok {
		return c.fail("stat: '%s': %v", name, errNoFile)
	}
	if format == "" {
		c.printf("  File: %s\n  Size: %d\nModify: %s\n", name, len(f.content), f.modified.UTC().Format("2006-01-02 15:04:05.000000000 -0700"))
		return 0
	}
	c.printf("%s\n", strings.NewReplacer("%s", strconv.Itoa(len(f.content)), "%n", name, "%Y", strconv.FormatInt(f.modified.Unix(), 10)).Replace(format))
	return 0
}

func shellRM(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	force, recursive := false, false
	for _, a := range c.args[1:] {
		if strings.HasPrefix(a, "-") {
			force = force || strings.Contains(a, "f")
			recursive = recursive || strings.ContainsAny(a, "rR")
		}
	}
	code := 0
	for _, name := range c.operands() {
		clean := path.Clean("/" + name)
		if all, ok := strings.CutSuffix(clean, "/*"); ok {
			p.removeUnder(all)
			continue
		}
		if recursive {
			p.removeUnder(clean)
		}
		if _, ok := p.files[clean]; !ok && !force {
			code = c.fail("rm: %s: %v", name, errNoFile)
		}
		delete(p.files, clean)
	}
	return code
}

func (p *Phone) removeUnder(folder string) {
	for name := range p.files {
		if strings.HasPrefix(name, folder+"/") {
			delete(p.files, name)
		}
	}
}

func shellMkdir(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range c.operands("-m") {
		if f, ok := p.stat(name); ok {
			if f.mode&modeKind != modeDirectory&modeKind || !c.has("-p") {
				return c.fail("mkdir: '%s': File exists", name)
			}
			continue
		}
		p.files[path.Clean("/"+name)] = file{mode: modeDirectory, modified: time.Now()}
	}
	return 0
}

func shellTouch(c *call) int {
	p := c.phone
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, name := range c.operands() {
		f, ok := p.stat(name)
		if !ok {
			f = file{mode: modeRegular}
		}
		f.modified = time.Now()
		p.files[path.Clean("/"+name)] = f
	}
	return 0
}

func shellCat(c *call) int {
	names := c.operands()
	if len(names) == 0 {
		_, _ = io.Copy(c.stdout, c.stdin) // ends when either side does
		return 0
	}
	code := 0
	for _, name := range names {
		content, err := c.phone.readFile(name)
		if err != nil {
			code = c.fail("cat: %s: %v", name, err)
			continue
		}
		_, _ = c.stdout.Write(content) // nobody is left to tell when this fails
	}
	return code
}

func shellMD5(c *call, sum func([]byte) string) int {
	code := 0
	for _, name := range c.operands() {
		content, err := c.phone.readFile(name)
		if err != nil {
			code = c.fail("%s: %s: %v", c.args[0], name, err)
			continue
		}
		c.printf("%s  %s\n", sum(content), name)
	}
	return code
}

// freeSpace is what df tells of the data partition, in KiB.
func (p *Phone) freeSpace() (total, used, free int) {
	const size = 64 << 20
	if p.faults.lowStorage() {
		return size, size - 1024, 1024
	}
	return size, size / 4, size - size/4
}

func shellDF(c *call) int {
	total, used, free := c.phone.freeSpace()
	c.printf("Filesystem     1K-blocks     Used Available Use%% Mounted on\n%-14s %9d %8d %9d %3d%% %s\n",
		"/dev/block/dm-5", total, used, free, used*100/total, "/data")
	return 0
}
