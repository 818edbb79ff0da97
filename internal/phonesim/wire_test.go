package phonesim

import (
	"bytes"
	"net"
	"testing"
	"time"
)

func FuzzReadPacket(f *testing.F) {
	f.Add(packet{cmdConnect, wireVersion, maxPayload, []byte("host::features=shell_v2")}.append(nil))
	f.Add(packet{cmdWrite, 1, 2, bytes.Repeat([]byte{7}, 300)}.append(nil))
	f.Add(packet{cmdOkay, 1, 2, nil}.append(nil)[:20])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPacket(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := readPacket(bytes.NewReader(p.append(nil)))
		if err != nil || again.command != p.command || again.arg0 != p.arg0 || again.arg1 != p.arg1 || !bytes.Equal(again.payload, p.payload) {
			t.Fatalf("%+v became %+v, %v", p, again, err)
		}
	})
}

func TestPacketsThatAreNotADBs(t *testing.T) {
	good := packet{cmdOpen, 1, 0, []byte("shell:ls\x00")}.append(nil)
	long := bytes.Clone(good)
	long[14] = 0xff // the length
	wrong := bytes.Clone(good)
	wrong[20] ^= 1 // the check word
	for name, b := range map[string][]byte{"too long": long, "wrong check word": wrong, "cut": good[:len(good)-1], "header cut": good[:10]} {
		if p, err := readPacket(bytes.NewReader(b)); err == nil {
			t.Errorf("%s: read as %+v", name, p)
		}
	}
}

// wirePeer is the other side of a phone's connection, for what adb itself never does.
type wirePeer struct {
	t    *testing.T
	conn net.Conn
}

func dialPhone(t *testing.T, p *Phone) *wirePeer {
	t.Helper()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	w := &wirePeer{t, conn}
	w.send(packet{cmdConnect, wireVersion, maxPayload, []byte("host::")})
	if p := w.receive(); p.command != cmdConnect {
		t.Fatalf("answer to CNXN: %+v", p)
	}
	return w
}

func (w *wirePeer) send(p packet) {
	w.t.Helper()
	if _, err := w.conn.Write(p.append(nil)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wirePeer) receive() packet {
	w.t.Helper()
	p, err := readPacket(w.conn)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

func TestRefusedServiceIsClosedWithoutAnID(t *testing.T) {
	w := dialPhone(t, startPhone(t, Options{}))
	w.send(packet{cmdOpen, 7, 0, []byte("tcp:6790\x00")})
	equal(t, "answer", w.receive(), packet{cmdClose, 0, 7, nil})
	w.send(packet{cmdOpen, 8, 0, []byte("nonsense:\x00")})
	equal(t, "answer", w.receive(), packet{cmdClose, 0, 8, nil})
}

func TestFlowControl(t *testing.T) {
	w := dialPhone(t, startPhone(t, Options{}))
	w.send(packet{cmdOpen, 7, 0, []byte("shell:cat; sleep 60\x00")})
	id := w.receive().arg0
	w.send(packet{cmdWrite, 7, id, []byte("one")})
	equal(t, "taken", w.receive(), packet{cmdOkay, id, 7, nil})
	equal(t, "echoed", w.receive(), packet{cmdWrite, id, 7, []byte("one")})
	// The phone sends nothing more before it hears that its payload was taken, and cat reads nothing more before that.
	w.send(packet{cmdWrite, 7, id, []byte("two")})
	w.send(packet{cmdOkay, 7, id, nil})
	equal(t, "taken", w.receive(), packet{cmdOkay, id, 7, nil})
	equal(t, "echoed", w.receive(), packet{cmdWrite, id, 7, []byte("two")})
	w.send(packet{cmdClose, 7, id, nil})
	w.send(packet{cmdWrite, 7, id, []byte("three")})
	equal(t, "written to a closed stream", w.receive(), packet{cmdClose, 0, 7, nil})
}

func TestPhoneSendsOnePayloadAtATime(t *testing.T) {
	p := startPhone(t, Options{})
	content := bytes.Repeat([]byte("0123456789abcdef"), (2<<20)/16)
	p.writeFile("/data/local/tmp/big", content)
	w := dialPhone(t, p)
	w.send(packet{cmdOpen, 7, 0, []byte("exec:cat /data/local/tmp/big\x00")})
	id := w.receive().arg0
	first := w.receive()
	equal(t, "first payload", len(first.payload), maxPayload)
	for range 100 { // while the first payload is not taken, all else goes on and the second does not come
		w.send(packet{cmdOpen, 8, 0, []byte("nonsense:\x00")})
		if answer := w.receive(); answer.command != cmdClose {
			t.Fatalf("received %08x and %d bytes", answer.command, len(answer.payload))
		}
	}
	w.send(packet{cmdOkay, 7, id, nil})
	second := w.receive()
	if !bytes.Equal(append(first.payload, second.payload...), content) {
		t.Errorf("received %d and %d bytes that are not the file", len(first.payload), len(second.payload))
	}
	w.send(packet{cmdOkay, 7, id, nil})
	equal(t, "end", w.receive(), packet{cmdClose, id, 7, nil})
}

func TestPayloadSentBeforeTheLastWasTakenEndsTheConnection(t *testing.T) {
	w := dialPhone(t, startPhone(t, Options{}))
	w.send(packet{cmdOpen, 7, 0, []byte("shell:sleep 60\x00")})
	id := w.receive().arg0
	w.send(packet{cmdWrite, 7, id, []byte("one")})
	w.send(packet{cmdWrite, 7, id, []byte("two")})
	if p, err := readPacket(w.conn); err == nil {
		t.Errorf("the phone answered %+v", p)
	}
}
