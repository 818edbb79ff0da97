package phonesim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

var errStreamClosed = errors.New("adb stream is closed")

// transport is one connection of an adb server to the phone, and the streams in it.
type transport struct {
	phone  *Phone
	conn   net.Conn
	ctx    context.Context // ends when the connection does
	cancel context.CancelFunc

	writing sync.Mutex // one packet at a time

	mu         sync.Mutex
	streams    map[uint32]*stream
	nextID     uint32
	maxPayload int
}

// serveTransport speaks adb with conn until one side ends it, and waits for the services that it started.
func (p *Phone) serveTransport(conn net.Conn) {
	ctx, cancel := context.WithCancel(p.ctx)
	t := &transport{phone: p, conn: conn, ctx: ctx, cancel: cancel, streams: map[uint32]*stream{}, maxPayload: minPayload}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()

	var services sync.WaitGroup
	defer services.Wait()
	defer t.end()
	if !p.addTransport(t) {
		return
	}
	defer p.removeTransport(t)
	for {
		pkt, err := readPacket(conn)
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				p.log.Debug("adb connection ended", "error", err)
			}
			return
		}
		if !p.faults.waitWhileHung(ctx) {
			return
		}
		if err := t.handle(pkt, &services); err != nil {
			p.log.Debug("adb connection ended", "error", err)
			return
		}
	}
}

// handle acts on one packet. An error ends the connection.
func (t *transport) handle(pkt packet, services *sync.WaitGroup) error {
	switch pkt.command {
	case cmdConnect:
		t.mu.Lock()
		t.maxPayload = max(minPayload, min(int(pkt.arg1), maxPayload))
		t.mu.Unlock()
		return t.send(packet{cmdConnect, wireVersion, maxPayload, []byte(t.phone.banner())})
	case cmdOpen:
		s := t.open(pkt.arg0)
		destination := string(bytes.TrimRight(pkt.payload, "\x00"))
		services.Go(func() { t.phone.serve(s, destination) })
		return nil
	case cmdWrite:
		s := t.stream(pkt.arg1)
		if s == nil {
			return t.send(packet{cmdClose, 0, pkt.arg0, nil})
		}
		return s.deliver(pkt.payload)
	case cmdOkay:
		if s := t.stream(pkt.arg1); s != nil {
			s.acknowledge()
		}
		return nil
	case cmdClose:
		if s := t.remove(pkt.arg1); s != nil {
			s.shut()
		}
		return nil
	case cmdAuth:
		return nil
	}
	return fmt.Errorf("adb packet: unknown command %08x", pkt.command)
}

func (t *transport) send(pkt packet) error {
	if !t.phone.faults.waitWhileHung(t.ctx) {
		return net.ErrClosed
	}
	b := pkt.append(make([]byte, 0, packetHeader+len(pkt.payload)))
	t.writing.Lock()
	defer t.writing.Unlock()
	_, err := t.conn.Write(b)
	return err
}

func (t *transport) open(remote uint32) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.nextID++
	ctx, cancel := context.WithCancel(t.ctx)
	s := &stream{
		transport: t, local: t.nextID, remote: remote, ctx: ctx, cancel: cancel,
		arrived: make(chan struct{}, 1), acked: make(chan struct{}, 1),
	}
	t.streams[s.local] = s
	return s
}

func (t *transport) stream(local uint32) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.streams[local]
}

// remove forgets a stream, so that whoever removed it answers for telling the other side.
func (t *transport) remove(local uint32) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.streams[local]
	delete(t.streams, local)
	return s
}

// end closes the connection and with it every stream.
func (t *transport) end() {
	t.cancel()
	_ = t.conn.Close()
}

// stream is one service opened by the other side. Reads and writes follow adb's flow control: each side
// sends one payload and waits until it was taken.
type stream struct {
	transport     *transport
	local, remote uint32
	ctx           context.Context // ends when either side closes the stream
	cancel        context.CancelFunc

	mu      sync.Mutex
	open    bool          // the other side was told that the service exists
	pending []byte        // received, not yet read
	owed    bool          // an OKAY is due once pending has been read
	arrived chan struct{} // pending has bytes, or the stream was closed
	acked   chan struct{} // the payload last written was taken
	writing sync.Mutex
}

// accept tells the other side that the service exists.
func (s *stream) accept() error {
	s.mu.Lock()
	s.open = true
	s.mu.Unlock()
	return s.transport.send(packet{cmdOkay, s.local, s.remote, nil})
}

func (s *stream) deliver(payload []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.owed {
		return fmt.Errorf("adb stream %d: a payload was sent before the last one was taken", s.local)
	}
	s.pending, s.owed = payload, true
	s.signal()
	return nil
}

func (s *stream) signal() {
	select {
	case s.arrived <- struct{}{}:
	default:
	}
}

func (s *stream) acknowledge() {
	select {
	case s.acked <- struct{}{}:
	default:
	}
}

// Read returns what the other side wrote, io.EOF after it closed the stream.
func (s *stream) Read(p []byte) (int, error) {
	for {
		s.mu.Lock()
		n := copy(p, s.pending)
		s.pending = s.pending[n:]
		due := s.owed && len(s.pending) == 0
		if due {
			s.owed = false
		}
		s.mu.Unlock()
		if due && s.ctx.Err() == nil {
			if err := s.transport.send(packet{cmdOkay, s.local, s.remote, nil}); err != nil && n == 0 {
				return 0, err
			}
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
		select {
		case <-s.arrived:
		case <-s.ctx.Done():
			s.mu.Lock()
			left := len(s.pending)
			s.mu.Unlock()
			if left == 0 {
				return 0, io.EOF
			}
		}
	}
}

// Write sends p in payloads of the size agreed on, each after the one before was taken.
func (s *stream) Write(p []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	s.transport.mu.Lock()
	size := s.transport.maxPayload
	s.transport.mu.Unlock()
	written := 0
	for len(p) > 0 {
		if s.ctx.Err() != nil {
			return written, errStreamClosed
		}
		n := min(len(p), size)
		if err := s.transport.send(packet{cmdWrite, s.local, s.remote, p[:n]}); err != nil {
			return written, err
		}
		select {
		case <-s.acked:
		case <-s.ctx.Done():
			return written, errStreamClosed
		}
		written += n
		p = p[n:]
	}
	return written, nil
}

// shut ends the stream on this side only.
func (s *stream) shut() {
	s.cancel()
	s.signal()
}

// Close ends the stream and tells the other side, once.
func (s *stream) Close() error {
	mine := s.transport.remove(s.local) != nil
	s.shut()
	if !mine {
		return nil
	}
	s.mu.Lock()
	local := s.local
	if !s.open {
		local = 0 // a refusal: the other side has not learned of our id
	}
	s.mu.Unlock()
	return s.transport.send(packet{cmdClose, local, s.remote, nil})
}
