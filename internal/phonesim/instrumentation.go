package phonesim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// The package whose instrumentation is the UiAutomator2 server.
const uiautomatorTest = "io.appium.uiautomator2.server.test"

// instrumentation is the UiAutomator2 server's process on the phone.
type instrumentation struct {
	pkg, target string
	connections *pipeListener // nil for one that listens on a port
	server      *http.Server
	done        chan struct{}
	session     string // the open session, "" when there is none; guarded by the phone's lock
}

// amInstrument runs an instrumentation until it ends or nobody waits for it any more, as `am instrument -w` does.
func amInstrument(c *call) int {
	p := c.phone
	i, err := p.startInstrumentation(c.last())
	if err != nil {
		c.printf("INSTRUMENTATION_STATUS: id=ActivityManagerService\nINSTRUMENTATION_STATUS: Error=%v\nINSTRUMENTATION_STATUS_CODE: -1\n", err)
		return 1
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := i.server.Serve(i.connections); !errors.Is(err, http.ErrServerClosed) {
			p.log.Error("the UiAutomator2 server ended", "error", err)
		}
	})
	c.printf("INSTRUMENTATION_STATUS: class=%s.AppiumUiAutomator2Server\nINSTRUMENTATION_STATUS: current=1\nINSTRUMENTATION_STATUS_CODE: 1\n", uiautomatorTest)
	select {
	case <-i.done:
		c.printf("INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n")
	case <-c.ctx.Done():
		p.mu.Lock()
		if p.instrumentation == i {
			p.endInstrumentation("adb ended it")
		}
		p.mu.Unlock()
	}
	serving.Wait()
	return 0
}

func (p *Phone) startInstrumentation(name string) (*instrumentation, error) {
	t := (&call{args: []string{"", "-n", name}}).target()
	p.mu.Lock()
	defer p.mu.Unlock()
	pkg := p.packages[t.pkg]
	if pkg == nil || pkg.instrumentation == "" || p.packages[pkg.target] == nil {
		return nil, fmt.Errorf("%s: no such instrumentation is installed", name)
	}
	if t.pkg != uiautomatorTest {
		return nil, errors.New("the simulated phone runs no other instrumentation than the UiAutomator2 server's")
	}
	if p.instrumentation != nil {
		p.endInstrumentation("another one was started")
	}
	i := &instrumentation{pkg: t.pkg, target: pkg.target, connections: newPipeListener(), done: make(chan struct{})}
	i.server = &http.Server{Handler: p.uiautomatorHandler(i), ReadHeaderTimeout: time.Minute}
	p.instrumentation = i
	close(p.instrumented)
	p.instrumented = make(chan struct{})
	p.spawn(pkg.target)
	p.log.Debug("UiAutomator2 server started")
	return i, nil
}

// endInstrumentation is called with the phone's lock held, while an instrumentation runs.
func (p *Phone) endInstrumentation(why string) {
	i := p.instrumentation
	p.instrumentation = nil
	delete(p.pids, i.target)
	if i.session != "" {
		p.ledger.closeSession(i.session, "died: "+why, time.Now())
		i.session = ""
	}
	close(i.done)
	_ = i.server.Close() // of pipes, which cannot fail
	if i.connections != nil {
		_ = i.connections.Close()
	}
	p.log.Debug("UiAutomator2 server ended", "reason", why)
}

// killInstrumentation ends the instrumentation, and says whether one ran.
func (p *Phone) killInstrumentation(why string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.instrumentation == nil {
		return false
	}
	p.endInstrumentation(why)
	return true
}

// startGrace is how long a connection waits for a server that may be about to start. The driver connects a few milliseconds after it asked for
// the start and, refused, tries again a second later: a second for each session.
const startGrace = 100 * time.Millisecond

// runningInstrumentation is the instrumentation that runs, or starts in a moment; nil when there is none.
func (p *Phone) runningInstrumentation(ctx context.Context) *instrumentation {
	p.mu.Lock()
	i, started := p.instrumentation, p.instrumented
	p.mu.Unlock()
	if i != nil {
		return i
	}
	timer := time.NewTimer(startGrace)
	defer timer.Stop()
	select {
	case <-started:
	case <-timer.C:
	case <-ctx.Done():
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.instrumentation
}

// serveInstrumentation connects a stream with the UiAutomator2 server. Without one the stream is refused, as a port where nobody listens.
func (p *Phone) serveInstrumentation(s *stream) {
	i := p.runningInstrumentation(s.ctx)
	if i == nil {
		return
	}
	near, far := net.Pipe()
	if !i.connections.offer(far) || s.accept() != nil {
		_ = near.Close()
		return
	}
	var copying sync.WaitGroup
	copying.Go(func() {
		_, _ = io.Copy(near, s) // ends when either side closes
		_ = near.Close()
	})
	_, _ = io.Copy(s, near) // as above
	_ = near.Close()
	_ = s.Close()
	copying.Wait()
}

// pipeListener is a net.Listener of connections made within the process.
type pipeListener struct {
	connections chan net.Conn
	closed      chan struct{}
	once        sync.Once
}

func newPipeListener() *pipeListener {
	return &pipeListener{connections: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *pipeListener) offer(c net.Conn) bool {
	select {
	case l.connections <- c:
		return true
	case <-l.closed:
		return false
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.connections:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
