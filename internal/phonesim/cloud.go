package phonesim

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// CloudOptions describe a simulated account of BrowserStack's App Automate. The zero value listens on a free
// port of the loopback interface.
type CloudOptions struct {
	Username  string // default "simulated"
	AccessKey string // default "simulated-key"
	// Parallels is how many sessions run at the same time. Default 5.
	Parallels int
	// Queue is how many sessions may wait for a parallel. Default: as many as the parallels, 5 at least; negative: none.
	Queue int
	// QueueTime is how long a session waits at most. Default 15 minutes.
	QueueTime time.Duration
	// UploadsPerMinute is how many apps are taken within a minute. Default 5.
	UploadsPerMinute int
	// UploadTime and SessionTime are how long the upload of an app and the making of a session take.
	UploadTime, SessionTime time.Duration
	// Listen is the address of hub and REST interface, which speak HTTP. Default 127.0.0.1:0.
	Listen string
	// Logger receives what happens. Default: none.
	Logger *slog.Logger
}

// The life of an upload and the limits of a session, as BrowserStack's documentation names them.
const (
	uploadLife    = 30 * 24 * time.Hour
	defaultIdle   = 90 * time.Second
	longestIdle   = 300 * time.Second
	sessionLimit  = 2 * time.Hour
	longestCustom = 100 // characters of a custom_id
)

// Cloud is a simulated account of BrowserStack's App Automate: its hub and its REST interface, as strict as
// the documentation says, with a simulated phone behind each session. All methods may be called concurrently.
type Cloud struct {
	options  CloudOptions
	log      *slog.Logger
	listener net.Listener
	server   *http.Server
	ctx      context.Context // ends with the cloud
	cancel   context.CancelFunc
	running  sync.WaitGroup

	mu          sync.Mutex
	skipped     time.Duration // how much the cloud's clock is ahead
	fault       CloudFault
	healed      chan struct{} // closed when fault changes
	connections map[net.Conn]bool
	apps        []*cloudApp
	uploads     []time.Time // of the last minute
	sessions    []*cloudSession
	waiting     []*cloudSession // for a parallel, in their order
	ledger      CloudLedger
}

// CloudLedger is the cloud's own account of what was asked of it. Its counters only grow, but those named as of now.
type CloudLedger struct {
	Uploads         int            `json:"uploads"`          // taken
	UploadsRefused  int            `json:"uploads_refused"`  // for whatever reason
	UploadsOf       map[string]int `json:"uploads_of"`       // taken, by the SHA-256 of the file
	SessionsMade    int            `json:"sessions_made"`    //
	SessionsRefused int            `json:"sessions_refused"` //
	QueueFull       int            `json:"queue_full"`       // sessions refused because the queue was full
	Queued          int            `json:"queued"`           // sessions that had to wait
	IdleTimeouts    int            `json:"idle_timeouts"`    // sessions that nobody ended
	Unauthorized    int            `json:"unauthorized"`     // requests with other credentials
	MostRunning     int            `json:"most_running"`     // sessions at the same time

	Apps     []string       `json:"apps"`     // SHA-256 of the uploads that are there now
	Sessions []CloudSession `json:"sessions"` // oldest first
}

// CloudSession is one session.
type CloudSession struct {
	ID       string     `json:"id"`
	Name     string     `json:"name"`
	Build    string     `json:"build"`
	Project  string     `json:"project"`
	Status   string     `json:"status"` // queued, running, done, passed, failed, timeout
	Reason   string     `json:"reason"`
	Device   string     `json:"device"`
	SHA256   string     `json:"sha256"` // of the app
	MadeAt   *time.Time `json:"made_at,omitempty"`
	EndedAt  *time.Time `json:"ended_at,omitempty"`
	Commands int        `json:"commands"`
}

// The kinds of CloudFault.
const (
	CloudOffline      = "offline"       // cuts connections and refuses new ones
	CloudHang         = "hang"          // takes requests and answers none
	CloudRefuseUpload = "refuse_upload" // refuses uploads with Message
)

// CloudFault is a misbehaviour of the cloud, until it is cleared. The zero value is none.
type CloudFault struct {
	Kind    string `json:"kind"`
	Message string `json:"message,omitempty"`
}

// StartCloud opens an account. It serves when StartCloud returns.
func StartCloud(o CloudOptions) (*Cloud, error) {
	o = o.withDefaults()
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("simulated BrowserStack: %w", err)
	}
	c := &Cloud{
		options: o, log: o.Logger, listener: listener, healed: make(chan struct{}), connections: map[net.Conn]bool{},
		ledger: CloudLedger{UploadsOf: map[string]int{}},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.server = &http.Server{
		Handler: c.faulty(c.routes()), ReadHeaderTimeout: time.Minute, ConnState: c.track,
		ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	c.running.Go(func() {
		if err := c.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			c.log.Error("the simulated BrowserStack ended", "error", err)
		}
	})
	return c, nil
}

func (o CloudOptions) withDefaults() CloudOptions {
	o.Username = cmp.Or(o.Username, "simulated")
	o.AccessKey = cmp.Or(o.AccessKey, "simulated-key")
	o.Parallels = cmp.Or(o.Parallels, 5)
	o.Queue = max(0, cmp.Or(o.Queue, max(5, o.Parallels)))
	o.QueueTime = cmp.Or(o.QueueTime, 15*time.Minute)
	o.UploadsPerMinute = cmp.Or(o.UploadsPerMinute, 5)
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:0")
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// URL is where hub and REST interface are, without a trailing slash: the hub under /wd/hub, the REST interface
// under /app-automate.
func (c *Cloud) URL() string { return "http://" + c.listener.Addr().String() }

// Username and AccessKey are the account's credentials.
func (c *Cloud) Username() string { return c.options.Username }

// AccessKey is the account's other half of the credentials.
func (c *Cloud) AccessKey() string { return c.options.AccessKey }

// Close ends every session and waits until everything has ended.
func (c *Cloud) Close() error {
	c.cancel()
	c.SetFault(CloudFault{})
	err := c.server.Close()
	c.mu.Lock()
	open := slices.Clone(c.sessions)
	c.mu.Unlock()
	for _, s := range open {
		c.end(s, "done", "the account was closed")
	}
	c.running.Wait()
	return err
}

// SetFault makes the cloud misbehave, in place of how it did before.
func (c *Cloud) SetFault(f CloudFault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
	close(c.healed)
	c.healed = make(chan struct{})
	if f.Kind == CloudOffline {
		for conn := range c.connections {
			conn.Close()
		}
	}
}

func (f CloudFault) validate() error {
	switch f.Kind {
	case CloudOffline, CloudHang, CloudRefuseUpload:
		return nil
	}
	return fmt.Errorf("fault: unknown kind %q; there are %s, %s and %s", f.Kind, CloudOffline, CloudHang, CloudRefuseUpload)
}

// Skip sets the cloud's clock forward: what lives for a time grows older by d.
func (c *Cloud) Skip(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped += d
}

// Ledger returns a copy of the ledger as it is now.
func (c *Cloud) Ledger() CloudLedger {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.ledger
	l.UploadsOf = map[string]int{}
	for sha, n := range c.ledger.UploadsOf {
		l.UploadsOf[sha] = n
	}
	l.Apps, l.Sessions = []string{}, []CloudSession{}
	for _, a := range c.liveApps() {
		l.Apps = append(l.Apps, a.sha256)
	}
	for _, s := range c.sessions {
		l.Sessions = append(l.Sessions, s.CloudSession)
	}
	return l
}

// Control lets another process read the truth and break the cloud:
//
//	GET    /ledger  the CloudLedger
//	PUT    /fault   sets the CloudFault in the body
//	DELETE /fault   clears it
func (c *Cloud) Control() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ledger", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, c.Ledger()) })
	mux.HandleFunc("PUT /fault", func(w http.ResponseWriter, r *http.Request) {
		var f CloudFault
		err := readJSON(w, r, &f)
		if err == nil {
			err = f.validate()
		}
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		c.SetFault(f)
		writeJSON(w, http.StatusOK, f)
	})
	mux.HandleFunc("DELETE /fault", func(w http.ResponseWriter, _ *http.Request) {
		c.SetFault(CloudFault{})
		writeJSON(w, http.StatusOK, CloudFault{})
	})
	return mux
}

// faulty lets a fault strike before anything else.
func (c *Cloud) faulty(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			c.mu.Lock()
			fault, healed := c.fault, c.healed
			c.mu.Unlock()
			switch fault.Kind {
			case CloudOffline:
				panic(http.ErrAbortHandler)
			case CloudHang:
				select {
				case <-healed:
					continue
				case <-r.Context().Done():
					return
				}
			}
			next.ServeHTTP(w, r)
			return
		}
	})
}

func (c *Cloud) track(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.connections[conn] = true
		if c.fault.Kind == CloudOffline {
			conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		delete(c.connections, conn)
	}
}

// now is the cloud's time. It is called with the lock held.
func (c *Cloud) now() time.Time { return time.Now().Add(c.skipped) }

// authorized says whether a request has the account's credentials.
func (c *Cloud) authorized(r *http.Request) bool {
	username, key, ok := r.BasicAuth()
	if ok && username == c.options.Username && key == c.options.AccessKey {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ledger.Unauthorized++
	return false
}

// hashedID is an id as BrowserStack makes them.
func hashedID() string {
	var b [20]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
