package phonesim

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// MacOptions describe a Mac.
type MacOptions struct {
	// Dir is where its programs and apps are kept.
	Dir string
	// Program is what calls a tool: with the Mac's address, the tool's name and its arguments added.
	Program []string
	IPhones []IPhoneOptions
	// BuildTime is how long xcodebuild takes to build and start WebDriverAgent.
	BuildTime time.Duration
	Logger    *slog.Logger // default: none
}

// Mac is as much of a Mac with Xcode as drives iPhones and simulators: xcrun with simctl and devicectl, xcodebuild as far as
// it runs WebDriverAgent, and xcode-select. The programs lie in Bin; they are short scripts that hand their arguments over to the Mac.
type Mac struct {
	o       MacOptions
	log     *slog.Logger
	iphones []*iPhone
	server  *http.Server
	address string
	served  chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex
	programs map[string]context.CancelCauseFunc // that run, by their request's id
	films    bool                               // a simulator's screen is recorded
}

// StartMac switches a Mac on.
func StartMac(o MacOptions) (*Mac, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("simulated Mac: %w", err)
	}
	m := &Mac{o: o, log: o.Logger, address: "http://" + listener.Addr().String(), served: make(chan struct{}), programs: map[string]context.CancelCauseFunc{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	for _, i := range o.IPhones {
		m.iphones = append(m.iphones, newIPhone(i, filepath.Join(o.Dir, "devices", i.UDID, "data", "Containers"), o.Logger))
	}
	m.server = &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second}
	if err := m.writePrograms(); err != nil {
		return nil, errors.Join(fmt.Errorf("simulated Mac: %w", err), listener.Close())
	}
	go func() {
		defer close(m.served)
		m.server.Serve(listener) // until Close
	}()
	return m, nil
}

// Bin is the directory of its programs, which goes first on PATH.
func (m *Mac) Bin() string { return filepath.Join(m.o.Dir, "bin") }

// ControlURL is where an iPhone's Phone.Control is.
func (m *Mac) ControlURL(udid string) string { return m.address + "/iphone/" + udid }

// Close switches the Mac and its iPhones off.
func (m *Mac) Close() error {
	m.cancel()
	err := m.server.Close()
	<-m.served
	m.running.Wait()
	for _, d := range m.iphones {
		err = errors.Join(err, d.Close())
	}
	return err
}

// IPhone is the phone that an iPhone or a simulator has inside, nil where there is none of that UDID.
func (m *Mac) IPhone(udid string) *Phone {
	if d := m.iphone(udid); d != nil {
		return d.Phone
	}
	return nil
}

// InstallApp installs an app's directory as somebody else would.
func (m *Mac) InstallApp(udid, dir string) error {
	_, err := m.iphone(udid).installApp(dir)
	return err
}

func (m *Mac) iphone(udid string) *iPhone {
	at := slices.IndexFunc(m.iphones, func(d *iPhone) bool { return strings.EqualFold(d.o.UDID, udid) })
	if at < 0 {
		return nil
	}
	return m.iphones[at]
}

const xcodeVersion = "16.2"

// developerDir is what xcode-select tells.
func (m *Mac) developerDir() string {
	return filepath.Join(m.o.Dir, "Xcode.app", "Contents", "Developer")
}

func (m *Mac) writePrograms() error {
	for _, dir := range []string{m.Bin(), m.developerDir()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	described := `<?xml version="1.0" encoding="UTF-8"?><plist version="1.0"><dict><key>CFBundleIdentifier</key><string>com.apple.dt.Xcode</string>` +
		`<key>CFBundleShortVersionString</key><string>` + xcodeVersion + `</string></dict></plist>`
	if err := os.WriteFile(filepath.Join(filepath.Dir(m.developerDir()), "Info.plist"), []byte(described), 0o644); err != nil {
		return err
	}
	for name := range macTools {
		script := "#!/bin/sh\nexec"
		for _, word := range append(slices.Clone(m.o.Program), m.address, name) {
			script += " '" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		if err := os.WriteFile(filepath.Join(m.Bin(), name), []byte(script+" \"$@\"\n"), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// macCall is one run of a program.
type macCall struct {
	mac    *Mac
	ctx    context.Context // ends when the program is killed
	args   []string
	env    map[string]string
	dir    string
	json   string // file that devicectl writes its result into
	stdout io.Writer
	stderr io.Writer
}

func (c *macCall) printf(format string, args ...any) { fmt.Fprintf(c.stdout, format, args...) }

// fail is how a program says why it ends.
func (c *macCall) fail(code int, format string, args ...any) int {
	fmt.Fprintf(c.stderr, format+"\n", args...)
	return code
}

// option returns what follows a flag among the arguments, or after its = sign.
func (c *macCall) option(flags ...string) string {
	for i, a := range c.args {
		for _, flag := range flags {
			if a == flag && i+1 < len(c.args) {
				return c.args[i+1]
			}
			if value, ok := strings.CutPrefix(a, flag+"="); ok {
				return value
			}
		}
	}
	return ""
}

func (c *macCall) has(word string) bool { return slices.Contains(c.args, word) }

// path is a file name as the program's own directory makes it.
func (c *macCall) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(c.dir, name)
}

// macTools are the programs.
var macTools = map[string]func(*macCall) int{"xcrun": xcrun, "xcodebuild": xcodebuild, "xcode-select": xcodeSelect}

func xcodeSelect(c *macCall) int {
	c.printf("%s\n", c.mac.developerDir())
	return 0
}

func xcrun(c *macCall) int {
	switch {
	case len(c.args) > 0 && c.args[0] == "simctl":
		c.args = c.args[1:]
		return simctl(c)
	case len(c.args) > 0 && c.args[0] == "devicectl":
		c.args = c.args[1:]
		return devicectl(c)
	case c.has("--show-sdk-version"):
		c.printf("18.2\n")
		return 0
	case c.has("--version"):
		c.printf("xcrun version 70.\n")
		return 0
	}
	return c.fail(72, "xcrun: error: unable to find utility %q, not a developer tool or in PATH", strings.Join(c.args, " "))
}

// frame is a piece of a program's output, or its end.
type macFrame struct {
	Fd   int    `json:"fd,omitempty"`
	Text []byte `json:"text,omitempty"`
	Exit *int   `json:"exit,omitempty"`
}

type macRequest struct {
	ID   string            `json:"id"`
	Tool string            `json:"tool"`
	Args []string          `json:"args"`
	Dir  string            `json:"dir"`
	Env  map[string]string `json:"env"`
}

// Why a program's context ended. One that was killed has neither.
var (
	errInterrupted = errors.New("interrupted (SIGINT)")
	errTerminated  = errors.New("terminated")
)

// macEnvironment are the variables of a program that mean something to it.
var macEnvironment = []string{"USE_PORT", "MJPEG_SERVER_PORT", "DEVELOPER_DIR"}

// handler lets programs run on the Mac, and other processes read the truth and break an iPhone:
//
//	POST /run             runs a program
//	POST /interrupt/ID    ends it, as by the signal that the query names
//	     /iphone/UDID/... an iPhone's Phone.Control
func (m *Mac) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /run", m.run)
	mux.HandleFunc("POST /interrupt/{id}", func(_ http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		defer m.mu.Unlock()
		if interrupt := m.programs[r.PathValue("id")]; interrupt != nil {
			why := errTerminated
			if r.FormValue("signal") == os.Interrupt.String() {
				why = errInterrupted
			}
			interrupt(why)
		}
	})
	for _, d := range m.iphones {
		mux.Handle("/iphone/"+d.o.UDID+"/", http.StripPrefix("/iphone/"+d.o.UDID, d.Control()))
	}
	return mux
}

func (m *Mac) run(w http.ResponseWriter, r *http.Request) {
	var asked macRequest
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&asked); err != nil || macTools[asked.Tool] == nil {
		http.Error(w, "no such program", http.StatusBadRequest)
		return
	}
	m.running.Add(1)
	defer m.running.Done()
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	defer context.AfterFunc(m.ctx, func() { cancel(nil) })()
	m.mu.Lock()
	m.programs[asked.ID] = cancel
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.programs, asked.ID)
	}()
	out := &frames{w: w}
	c := &macCall{mac: m, ctx: ctx, args: asked.Args, env: asked.Env, dir: asked.Dir, stdout: out.stream(1), stderr: out.stream(2)}
	code := macTools[asked.Tool](c)
	m.log.Debug("program", "tool", asked.Tool, "args", asked.Args, "exit", code)
	out.send(macFrame{Exit: &code})
}

// frames sends a program's output to where it was started.
type frames struct {
	mu sync.Mutex
	w  http.ResponseWriter
}

func (f *frames) send(frame macFrame) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = json.NewEncoder(f.w).Encode(frame) // the program may be gone
	_ = http.NewResponseController(f.w).Flush()
}

func (f *frames) stream(fd int) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		f.send(macFrame{Fd: fd, Text: b})
		return len(b), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

// RunMacTool is what a program of a Mac does: it lets the Mac do it, and returns its exit code. Args are the Mac's address, the program's name
// and its arguments; signal is what ended ctx.
func RunMacTool(ctx context.Context, signal func() os.Signal, args []string, env func(string) string, stdout, stderr io.Writer) (int, error) {
	if len(args) < 2 {
		return 0, errors.New("the Mac's address and a program's name are missing")
	}
	dir, err := os.Getwd()
	if err != nil {
		return 0, err
	}
	asked := macRequest{ID: rand.Text(), Tool: args[1], Args: args[2:], Dir: dir, Env: map[string]string{}}
	for _, name := range macEnvironment {
		asked.Env[name] = env(name)
	}
	body, err := json.Marshal(asked)
	if err != nil {
		return 0, err
	}
	// An interrupt reaches the Mac as such: the program ends in its own way, and soon.
	interrupted := context.AfterFunc(ctx, func() {
		query := url.Values{}
		if sig := signal(); sig != nil {
			query.Set("signal", sig.String())
		}
		if answer, err := http.Post(args[0]+"/interrupt/"+asked.ID+"?"+query.Encode(), "", nil); err == nil {
			answer.Body.Close()
		}
	})
	defer interrupted()
	request, err := http.NewRequest(http.MethodPost, args[0]+"/run", strings.NewReader(string(body)))
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	decoder := json.NewDecoder(answer.Body)
	for {
		var frame macFrame
		if err := decoder.Decode(&frame); err != nil {
			return 0, fmt.Errorf("the Mac was switched off: %w", err)
		}
		switch {
		case frame.Exit != nil:
			return *frame.Exit, nil
		case frame.Fd == 1:
			stdout.Write(frame.Text)
		default:
			stderr.Write(frame.Text)
		}
	}
}
