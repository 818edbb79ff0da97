package server

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"qgjob"
)

// impatient makes transfers that do not move end soon.
func impatient(t *testing.T) {
	silence, window := transferSilence, transferWindow
	transferSilence, transferWindow = 200*time.Millisecond, 200*time.Millisecond
	t.Cleanup(func() { transferSilence, transferWindow = silence, window })
}

// connect opens a connection to a server of one handler and sends the beginning of a request.
func connect(t *testing.T, h http.HandlerFunc, request string) net.Conn {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	conn, err := net.Dial("tcp", srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	return conn
}

// An upload that trickles ends as one that stands still does.
func TestAnUploadThatTricklesIsGivenUp(t *testing.T) {
	impatient(t)
	ended := make(chan error, 1)
	conn := connect(t, func(w http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, &patientReader{r: r.Body, ctrl: http.NewResponseController(w)})
		ended <- err
	}, "PUT / HTTP/1.1\r\nHost: qgjob\r\nContent-Length: 100000000\r\n\r\n")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if qgjob.ErrorCode(err) != qgjob.CodeUnavailable || !strings.Contains(err.Error(), "must bring") {
				t.Errorf("it ended with %v", err)
			}
			return
		case <-tick.C:
			_, _ = io.WriteString(conn, "x") // fails once it was given up
		case <-time.After(30 * time.Second):
			t.Fatal("it does not end")
		}
	}
}

// A download whose client takes nothing ends; the connection of one that was taken serves on, whenever the next request comes.
func TestADownloadThatNobodyTakesIsGivenUp(t *testing.T) {
	impatient(t)
	file := bytes.Repeat([]byte("x"), 64<<20)
	ended := make(chan struct{}, 2)
	h := func(w http.ResponseWriter, r *http.Request) {
		serveFile(w, r, time.Time{}, bytes.NewReader(file))
		ended <- struct{}{}
	}
	connect(t, h, "GET / HTTP/1.1\r\nHost: qgjob\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}

	conn := connect(t, h, "")
	read := bufio.NewReader(conn)
	for range 2 {
		if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: qgjob\r\nRange: bytes=5-9\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(read, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(resp.Body); err != nil || string(got) != "xxxxx" {
			t.Errorf("%q, %v", got, err)
		}
		<-ended
		<-time.After(2 * transferSilence) // longer than a download may stand still
	}
}
