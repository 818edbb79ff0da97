// Package browserstack drives phones and iPhones of BrowserStack's App Automate: each parallel of the account is a device
// that a worker can open, and that is of either platform, as the build that it is given.
//
// A Driver lists as many slots as the account's plan has, of which those are offline that others on the account
// use (slots.go). An opened slot is a session with these parts: uploads.go has each build uploaded once;
// front.go is the server that tests talk to, which holds the credentials, waits where the hub's queue is full,
// and knows which sessions are open; record.go writes those down, so that the sessions of a worker that died
// are ended by the next one on the host.
//
// Nothing that the package returns or logs holds a credential. It knows nothing of jobs, and has been tried on
// a stand-in of BrowserStack only, which follows BrowserStack's documentation.
package browserstack

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// Where BrowserStack is.
const (
	hubURL  = "https://hub.browserstack.com"
	restURL = "https://api-cloud.browserstack.com"
)

// Options of a driver.
type Options struct {
	Username, AccessKey string
	// URL is where hub and REST interface are, for tests; empty: BrowserStack.
	URL string
	// Slots is how many parallels of the account are used at most; 0: all.
	Slots int
	// QueueWait is how long a job waits for a parallel that others use; 0: eight minutes.
	QueueWait time.Duration
	// MinutePrice is what a minute of a session costs, in any currency; 0: not counted.
	MinutePrice float64
	DataDir     string // for the record of open sessions
	Log         *slog.Logger
}

// Driver drives the parallels of one account.
type Driver struct {
	opts    Options
	account string // tells accounts apart in names, without naming one
	dir     string
	rest    *rest
	uploads *uploads
	log     *slog.Logger
	rhythm  time.Duration // of questions whether a parallel is free

	asking chan struct{} // holds a token while somebody asks for the plan

	mu      sync.Mutex
	plan    plan
	planned time.Time // when plan was asked for; zero before the first answer
	others  int       // sessions of others on the account, by that plan
	swept   time.Time // when the sessions of dead workers were last looked for
	open    map[int]*session
}

var _ device.Driver = (*Driver)(nil)

// New makes a driver. It touches nothing yet.
func New(opts Options) (*Driver, error) {
	if opts.Username == "" || opts.AccessKey == "" {
		return nil, errors.New("BrowserStack needs both BROWSERSTACK_USERNAME and BROWSERSTACK_ACCESS_KEY")
	}
	opts.QueueWait = cmp.Or(opts.QueueWait, 8*time.Minute)
	sum := sha256.Sum256([]byte(opts.Username))
	dir, err := filepath.Abs(opts.DataDir)
	if err != nil {
		return nil, err
	}
	d := &Driver{opts: opts, account: hex.EncodeToString(sum[:3]), log: opts.Log, rhythm: 5 * time.Second, asking: make(chan struct{}, 1), open: map[int]*session{}}
	d.dir = filepath.Join(dir, "browserstack", d.account)
	hub, api := cmp.Or(opts.URL, hubURL), cmp.Or(opts.URL, restURL)
	if d.rest, err = newREST(strings.TrimSuffix(hub, "/")+"/wd/hub", strings.TrimSuffix(api, "/")+"/app-automate", opts.Username, opts.AccessKey); err != nil {
		return nil, err
	}
	d.uploads = newUploads(d.rest, d.log)
	return d, nil
}

// serialOf and id name a slot: the first for this driver, the second for everybody who uses the account.
func serialOf(slot int) string { return fmt.Sprintf("browserstack-%d", slot) }

func (d *Driver) id(slot int) string { return serialOf(slot) + "@" + d.account }

// Open implements device.Driver.
func (d *Driver) Open(ctx context.Context, serial string) (device.Session, error) {
	var slot int
	if _, err := fmt.Sscanf(serial, "browserstack-%d", &slot); err != nil || slot < 1 || serial != serialOf(slot) {
		return nil, device.Failf(qgjob.CauseDeviceOffline, "there is no slot %q of BrowserStack", serial)
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "the directory of BrowserStack's slots cannot be made: %w", err)
	}
	return device.OpenLocked(d.id(slot), func(held *device.Held) (device.Session, error) { return d.openSlot(ctx, slot, held) })
}

func (d *Driver) openSlot(ctx context.Context, slot int, held *device.Held) (*session, error) {
	p, _, err := d.currentPlan(ctx)
	if err != nil {
		return nil, err
	}
	if slot > d.slots(p) {
		return nil, device.Failf(qgjob.CauseDeviceOffline, "the plan of the BrowserStack account has %d parallels, of which %d are used here: there is no slot %d", p.Max(), d.slots(p), slot)
	}
	if err := d.endDead(ctx, slot); err != nil {
		d.log.Warn("sessions of a worker that died could not be ended: BrowserStack ends them when they have been idle", "device", d.id(slot), "error", err)
	}
	s, err := newSession(d, slot, held)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.open[slot] = s
	d.mu.Unlock()
	return s, nil
}

// closed forgets an open slot.
func (d *Driver) closed(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open[s.slot] == s {
		delete(d.open, s.slot)
	}
}
