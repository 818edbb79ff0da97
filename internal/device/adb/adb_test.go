package adb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"qgjob/internal/device/adb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve is an adb server that answers each request of a connection with the next of the given answers, and
// closes the connection after the last. An answer of "hang" is none.
func serve(t *testing.T, answers ...string) (adb.Client, func() []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var requests []string
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				for _, answer := range answers {
					var size [4]byte
					if _, err := io.ReadFull(conn, size[:]); err != nil {
						return
					}
					n, _ := strconv.ParseUint(string(size[:]), 16, 16)
					request := make([]byte, n)
					if _, err := io.ReadFull(conn, request); err != nil {
						return
					}
					mu.Lock()
					requests = append(requests, string(request))
					mu.Unlock()
					if answer == "hang" {
						<-end
						return
					}
					io.WriteString(conn, answer)
				}
			})
		}
	})
	t.Cleanup(func() {
		close(end)
		l.Close()
		wg.Wait()
	})
	return adb.Client{Port: l.Addr().(*net.TCPAddr).Port}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return requests
	}
}

func framed(s string) string { return fmt.Sprintf("%04x%s", len(s), s) }

func TestDevices(t *testing.T) {
	client, _ := serve(t, "OKAY"+framed(""+
		"0123456789ABCDEF       device usb:1-2 product:panther model:Pixel_7 device:panther transport_id:4\n"+
		"emulator-5554          offline transport_id:5\n"+
		"R58M                   unauthorized usb:1-3 transport_id:6\n"+
		"QWERTY                 no permissions (user in plugdev group; are your udev rules wrong?); see [http://developer.android.com/tools/device.html] usb:1-4 transport_id:7\n"+
		"192.168.1.7:5555       device product:x model:SM_G998B device:y transport_id:8\n"))
	got, err := client.Devices(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []adb.Device{
		{Serial: "0123456789ABCDEF", State: "device", Model: "Pixel 7", TransportID: "4"},
		{Serial: "emulator-5554", State: "offline", TransportID: "5"},
		{Serial: "R58M", State: "unauthorized", TransportID: "6"},
		{Serial: "QWERTY", State: "no permissions", TransportID: "7"},
		{Serial: "192.168.1.7:5555", State: "device", Model: "SM G998B", TransportID: "8"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestRefusals(t *testing.T) {
	for reason, want := range map[string]error{
		"device 'X' not found": adb.ErrNotFound,
		"device offline":       adb.ErrOffline,
		"device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set": adb.ErrUnauthorized,
		"device still authorizing": adb.ErrUnauthorized,
		"device still connecting":  adb.ErrOffline,
		"closed":                   adb.ErrCut,
	} {
		client, _ := serve(t, "FAIL"+framed(reason))
		if _, err := client.Shell(t.Context(), "X", "true"); !errors.Is(err, want) {
			t.Errorf("%q is %v, want %v", reason, err, want)
		}
	}
}

func TestShell(t *testing.T) {
	packet := func(id byte, data string) string {
		return string([]byte{id, byte(len(data)), byte(len(data) >> 8), 0, 0}) + data
	}
	client, requests := serve(t, "OKAY", "OKAY"+packet(1, "out ")+packet(2, "err")+packet(9, "ignored")+packet(1, "more\n")+packet(3, "\x07"))
	got, err := client.Shell(t.Context(), "SERIAL", "ls -l")
	if err != nil {
		t.Fatal(err)
	}
	if want := (adb.Output{Stdout: "out more\n", Stderr: "err", Code: 7}); got != want {
		t.Errorf("output %+v, want %+v", got, want)
	}
	if diff := cmp.Diff([]string{"host:transport:SERIAL", "shell,v2,raw:ls -l"}, requests()); diff != "" {
		t.Errorf("requests (-want +got)\n%s", diff)
	}
}

func TestCutConnections(t *testing.T) {
	for name, answers := range map[string][]string{
		"before the exit code":         {"OKAY", "OKAY\x01\x02\x00\x00\x00hi"},
		"inside a packet":              {"OKAY", "OKAY\x01\xff\x00\x00\x00hi"},
		"inside a header":              {"OKAY", "OKAY\x01\xff"},
		"before the exit code's value": {"OKAY", "OKAY\x03\x01\x00\x00\x00"},
	} {
		client, _ := serve(t, answers...)
		if out, err := client.Shell(t.Context(), "X", "true"); !errors.Is(err, adb.ErrCut) {
			t.Errorf("%s: %+v %v, want ErrCut", name, out, err)
		}
	}
}

func TestNonsenseIsAnError(t *testing.T) {
	for _, answer := range []string{"", "HTTP/1.1 400 Bad Request\r\n\r\n", "OKAY", "OKAYzzzz", "FAIL", "OKAYffff"} {
		client, _ := serve(t, answer)
		if devices, err := client.Devices(t.Context()); err == nil {
			t.Errorf("%q is %v", answer, devices)
		}
		if _, err := client.Version(t.Context()); err == nil {
			t.Errorf("%q is a version", answer)
		}
	}
}

func TestEveryCallEndsWithItsContext(t *testing.T) {
	why := errors.New("the reason")
	for name, call := range map[string]func(context.Context, adb.Client) error{
		"devices": func(ctx context.Context, c adb.Client) error { _, err := c.Devices(ctx); return err },
		"shell":   func(ctx context.Context, c adb.Client) error { _, err := c.Shell(ctx, "X", "true"); return err },
		"connect": func(ctx context.Context, c adb.Client) error { return c.Connect(ctx, "X:1") },
	} {
		t.Run(name, func(t *testing.T) {
			client, _ := serve(t, "hang")
			ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, why)
			defer cancel()
			if err := call(ctx, client); !errors.Is(err, why) {
				t.Errorf("error %v, want the context's cause", err)
			}
		})
	}
	client, _ := serve(t, "OKAY", "OKAY", "hang")
	ctx, cancel := context.WithCancelCause(t.Context())
	conn, err := client.Exec(ctx, "X", "cat")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	cancel(why)
	if _, err := io.ReadAll(conn); !errors.Is(err, why) {
		t.Errorf("read after cancel: %v", err)
	}
}

func TestNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	if _, err := (adb.Client{Port: port}).Devices(t.Context()); !errors.Is(err, adb.ErrNoServer) {
		t.Errorf("error %v, want ErrNoServer", err)
	}
}

func TestForwards(t *testing.T) {
	client, _ := serve(t, "OKAY"+framed("A tcp:1 tcp:6790\nB tcp:2 tcp:6790\nA tcp:3 localabstract:chrome\n"))
	got, err := client.Forwards(t.Context(), "A")
	if err != nil {
		t.Fatal(err)
	}
	want := []adb.Forward{{"A", "tcp:1", "tcp:6790"}, {"A", "tcp:3", "localabstract:chrome"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestQuote(t *testing.T) {
	if got := adb.Quote("it's $HOME"); got != `'it'\''s $HOME'` {
		t.Errorf("quoted as %s", got)
	}
}

func TestPortFromEnv(t *testing.T) {
	for value, want := range map[string]int{"": 5037, "5038": 5038, "no port": 5037, "70000": 5037} {
		t.Setenv("ANDROID_ADB_SERVER_PORT", value)
		if got := adb.PortFromEnv(); got != want {
			t.Errorf("%q is port %d, want %d", value, got, want)
		}
	}
}

func FuzzShell(f *testing.F) {
	f.Add("\x01\x02\x00\x00\x00hi\x03\x01\x00\x00\x00\x00")
	f.Add("\x03\x00\x00\x00\x00")
	f.Fuzz(func(t *testing.T, stream string) {
		if out, err := adb.ReadShell(strings.NewReader(stream)); err == nil && len(out.Stdout)+len(out.Stderr) > len(stream) {
			t.Errorf("more came out than went in: %+v", out)
		}
	})
}
