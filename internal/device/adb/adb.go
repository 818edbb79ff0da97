// Package adb is a client of the adb server, the process that owns this host's connections to Android
// devices. It speaks the server's framed protocol over loopback TCP (SERVICES.TXT and OVERVIEW.TXT in the
// Android source, packages/modules/adb) with one connection a request.
//
// Every call ends when its context does, however a device or the server hangs; nothing is retried, and
// the server is started by Client.Start only and never killed. The package knows devices by serial and
// nothing of what qgjob does with them.
package adb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// DefaultPort is where adb servers listen.
const DefaultPort = 5037

// Errors of a device's state; the adb server reports them in words.
var (
	ErrNoServer     = errors.New("no adb server answers")
	ErrNotFound     = errors.New("device is not connected")
	ErrOffline      = errors.New("device is offline")
	ErrUnauthorized = errors.New("device has not authorized this host")
)

// Client talks to the adb server on a port of this host. Several goroutines may use it.
type Client struct{ Port int }

// PortFromEnv is ANDROID_ADB_SERVER_PORT, or DefaultPort where that is not set to a port.
func PortFromEnv() int {
	if n, err := strconv.Atoi(os.Getenv("ANDROID_ADB_SERVER_PORT")); err == nil && n > 0 && n < 65536 {
		return n
	}
	return DefaultPort
}

// Start makes sure that a server answers: where none does, it runs `adb start-server` once.
func (c Client) Start(ctx context.Context, adbPath string) error {
	if _, err := c.Version(ctx); err == nil || !errors.Is(err, ErrNoServer) {
		return err
	}
	cmd := exec.CommandContext(ctx, adbPath, "-P", strconv.Itoa(c.Port), "start-server")
	cmd.Dir = "/"                   // the server lives on: it must not keep a directory of ours busy
	cmd.WaitDelay = 2 * time.Second // nor our pipe
	out, err := cmd.CombinedOutput()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s -P %d start-server: %w: %s", adbPath, c.Port, err, bytes.TrimSpace(out))
	}
	_, err = c.Version(ctx)
	return err
}

// Stop ends the server and waits until it has gone: it answers before it ends. Where none answers, there is
// nothing to do.
func (c Client) Stop(ctx context.Context) error {
	conn, err := c.request(ctx, "host:kill")
	if errors.Is(err, ErrNoServer) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := conn.Close(); err != nil {
		return err
	}
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		_, err := c.Version(ctx)
		if errors.Is(err, ErrNoServer) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the adb server on port %d was told to end and did not: %w", c.Port, ctx.Err())
		case <-again.C:
		}
	}
}

// Version is the server's protocol version.
func (c Client) Version(ctx context.Context) (int, error) {
	answer, err := c.query(ctx, "host:version")
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseInt(answer, 16, 32)
	if err != nil {
		return 0, fmt.Errorf("adb server's version %.20q cannot be read", answer)
	}
	return int(v), nil
}

// Device is a line of `adb devices -l`.
type Device struct {
	Serial      string
	State       string // device, offline, unauthorized, authorizing, connecting, no permissions..., recovery, ...
	Model       string // "" unless State is device
	TransportID string // changes whenever the device reconnects
}

// Devices lists what the server knows, in any state.
func (c Client) Devices(ctx context.Context) ([]Device, error) {
	answer, err := c.query(ctx, "host:devices-l")
	if err != nil {
		return nil, err
	}
	return parseDevices(answer), nil
}

func parseDevices(list string) []Device {
	var devices []Device
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		d := Device{Serial: fields[0], State: fields[1]}
		if strings.Contains(line, "no permissions") {
			d.State = "no permissions"
		}
		for _, f := range fields[2:] {
			switch key, value, _ := strings.Cut(f, ":"); key {
			case "model":
				d.Model = strings.ReplaceAll(value, "_", " ")
			case "transport_id":
				d.TransportID = value
			}
		}
		devices = append(devices, d)
	}
	return devices
}

// Forward is a port of this host that the server forwards to a device.
type Forward struct{ Serial, Local, Remote string }

// Forwards lists the forwards of a device.
func (c Client) Forwards(ctx context.Context, serial string) ([]Forward, error) {
	answer, err := c.query(ctx, "host:list-forward")
	if err != nil {
		return nil, err
	}
	var forwards []Forward
	for line := range strings.Lines(answer) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == serial {
			forwards = append(forwards, Forward{f[0], f[1], f[2]})
		}
	}
	return forwards, nil
}

// RemoveForward ends a forward of a device; local is as in Forward.Local.
func (c Client) RemoveForward(ctx context.Context, serial, local string) error {
	conn, err := c.request(ctx, "host-serial:"+serial+":killforward:"+local)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Exec starts a command on the device with raw, unframed input and output. The caller writes its standard
// input, reads its standard output and error as one stream, and closes.
func (c Client) Exec(ctx context.Context, serial, command string) (*Conn, error) {
	return c.service(ctx, serial, "exec:"+command)
}

func (c Client) service(ctx context.Context, serial, service string) (*Conn, error) {
	conn, err := c.request(ctx, "host:transport:"+serial)
	if err != nil {
		return nil, err
	}
	if err := conn.ask(service); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// query makes a request whose answer is one length-prefixed string.
func (c Client) query(ctx context.Context, service string) (string, error) {
	conn, err := c.request(ctx, service)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.readString()
}

func (c Client) request(ctx context.Context, service string) (*Conn, error) {
	var dialer net.Dialer
	nc, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port)))
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%w on port %d: %w", ErrNoServer, c.Port, err)
	}
	conn := &Conn{nc: nc, ctx: ctx}
	conn.stop = context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	if err := conn.ask(service); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// Conn is a connection to a service of the adb server or of a device. Reads and writes fail with the
// context's cause once the context of the call that made it has ended.
type Conn struct {
	nc   net.Conn
	ctx  context.Context
	stop func() bool
}

func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.nc.Read(p)
	return n, c.explain(err)
}

func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.nc.Write(p)
	return n, c.explain(err)
}

// Close ends the service.
func (c *Conn) Close() error {
	c.stop()
	return c.nc.Close()
}

func (c *Conn) explain(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	return err
}

const maxString = 0xffff

// ask sends a service's name and reads OKAY or FAIL and a reason.
func (c *Conn) ask(service string) error {
	if len(service) > maxString {
		return fmt.Errorf("adb request of %d bytes is too long", len(service))
	}
	if _, err := fmt.Fprintf(c, "%04x%s", len(service), service); err != nil {
		return err
	}
	var status [4]byte
	if _, err := io.ReadFull(c, status[:]); err != nil {
		return fmt.Errorf("adb server closed the connection during %.60q: %w", service, err)
	}
	switch string(status[:]) {
	case "OKAY":
		return nil
	case "FAIL":
		reason, err := c.readString()
		if err != nil {
			return fmt.Errorf("adb server refused %.60q for a reason that cannot be read: %w", service, err)
		}
		return refusal(reason)
	}
	return fmt.Errorf("adb server answered %.60q with %q: is it an adb server?", service, status)
}

func (c *Conn) readString() (string, error) {
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(string(size[:]), 16, 32)
	if err != nil {
		return "", fmt.Errorf("adb server sent %q where a length was due", size)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(c, text); err != nil {
		return "", err
	}
	return string(text), nil
}

// refusal puts the server's words (adb.cpp and transport.cpp of adb) into errors that can be told apart.
func refusal(reason string) error {
	for _, known := range []struct {
		words string
		err   error
	}{
		{"not found", ErrNotFound},
		{"no devices", ErrNotFound},
		{"unauthorized", ErrUnauthorized},
		{"authorizing", ErrUnauthorized},
		{"offline", ErrOffline},
		{"still connecting", ErrOffline},
		{"closed", ErrCut},
	} {
		if strings.Contains(reason, known.words) {
			return fmt.Errorf("%w: %s", known.err, strings.TrimSpace(reason))
		}
	}
	return fmt.Errorf("adb server: %s", strings.TrimSpace(reason))
}

// Reconnect makes the server begin its connection to a device anew.
func (c Client) Reconnect(ctx context.Context, serial string) error {
	conn, err := c.request(ctx, "host-serial:"+serial+":reconnect")
	if err != nil {
		return err
	}
	return conn.Close()
}

// Connect makes the server connect to a device on the network, address host:port. A device that is
// connected already is no error.
func (c Client) Connect(ctx context.Context, address string) error {
	answer, err := c.query(ctx, "host:connect:"+address)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(answer, "connected to") && !strings.HasPrefix(answer, "already connected") {
		return fmt.Errorf("adb server: %s", strings.TrimSpace(answer))
	}
	return nil
}
