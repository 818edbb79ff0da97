// Package wire is the HTTP/1.1 client of all load clients and no-op workers: one connection, one request at a
// time, written as one segment. It costs a fraction of net/http's Transport, so that a machine of two cores
// measures the server and not its clients; it is the same for every contestant.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Conn is a connection to a server. It is used by one goroutine at a time.
type Conn struct {
	address string
	conn    net.Conn
	read    *bufio.Reader
	out     []byte
	in      bytes.Buffer
}

// Dial connects to a server.
func Dial(ctx context.Context, address string) (*Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Conn{address: address, conn: conn, read: bufio.NewReader(conn)}, nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// StatusError is an answer that is not a success.
type StatusError struct {
	Method, Path string
	Status       int
	Body         string
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s was answered with %d: %.300s", e.Method, e.Path, e.Status, e.Body)
}

// Do sends a request and returns the answer's body, which is valid until the next call. When the context ends
// meanwhile the connection is of no more use.
func (c *Conn) Do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	answer, err := c.do(method, path, body)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return answer, err
}

func (c *Conn) do(method, path string, body []byte) ([]byte, error) {
	if err := c.send(method, path, "application/json", body); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	c.in.Reset()
	if _, err := c.in.ReadFrom(resp.Body); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode >= 300 {
		return nil, &StatusError{method, path, resp.StatusCode, c.in.String()}
	}
	return c.in.Bytes(), nil
}

func (c *Conn) send(method, path, accept string, body []byte) error {
	c.out = append(c.out[:0], method...)
	c.out = append(append(append(c.out, ' '), path...), " HTTP/1.1\r\nHost: "...)
	c.out = append(append(append(c.out, c.address...), "\r\nAccept: "...), accept...)
	if body != nil {
		c.out = append(c.out, "\r\nContent-Type: application/json\r\nContent-Length: "...)
		c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	}
	c.out = append(append(c.out, "\r\n\r\n"...), body...)
	_, err := c.conn.Write(c.out)
	return err
}

// Call sends in as JSON, unless it is nil, and decodes the answer into out, unless that is nil.
func (c *Conn) Call(ctx context.Context, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	answer, err := c.Do(ctx, method, path, body)
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

// Watch opens a stream of server-sent events, and returns when its first event has come.
func (c *Conn) Watch(path string) error {
	if err := c.send(http.MethodGet, path, "text/event-stream", nil); err != nil {
		return err
	}
	resp, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	if resp.StatusCode != http.StatusOK {
		body, err := io.ReadAll(resp.Body)
		return errors.Join(&StatusError{http.MethodGet, path, resp.StatusCode, string(body)}, err)
	}
	lines := bufio.NewReaderSize(resp.Body, 16)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		if line == "\n" || line == "\r\n" {
			return nil
		}
	}
}
