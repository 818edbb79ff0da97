package phonesim

import (
	"encoding/binary"
	"fmt"
	"io"
)

// The commands of adb's transport protocol, four ASCII letters read as a little-endian number. The
// protocol is described in packages/modules/adb/protocol.txt of the Android sources.
const (
	cmdConnect uint32 = 0x4e584e43 // CNXN
	cmdAuth    uint32 = 0x48545541 // AUTH
	cmdOpen    uint32 = 0x4e45504f // OPEN
	cmdOkay    uint32 = 0x59414b4f // OKAY
	cmdClose   uint32 = 0x45534c43 // CLSE
	cmdWrite   uint32 = 0x45545257 // WRTE
)

const (
	// wireVersion is the protocol version from which on checksums are not looked at.
	wireVersion = 0x01000001
	// maxPayload is the largest payload that adb sends or takes.
	maxPayload = 1 << 20
	// minPayload is what the oldest adb takes, and what is sent before the other side said more.
	minPayload = 4096

	packetHeader = 24
)

// packet is one message of the transport protocol.
type packet struct {
	command    uint32
	arg0, arg1 uint32
	payload    []byte
}

// readPacket reads one packet. It refuses what cannot be adb's: a header whose check word does not match,
// or a payload longer than adb allows.
func readPacket(r io.Reader) (packet, error) {
	var header [packetHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return packet{}, err
	}
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(header[4*i:]) }
	p := packet{command: word(0), arg0: word(1), arg1: word(2)}
	if word(5) != ^p.command {
		return packet{}, fmt.Errorf("adb packet: command %08x does not match its check word %08x", p.command, word(5))
	}
	length := word(3)
	if length > maxPayload {
		return packet{}, fmt.Errorf("adb packet: payload of %d bytes, more than the %d that adb allows", length, maxPayload)
	}
	if length > 0 {
		p.payload = make([]byte, length)
		if _, err := io.ReadFull(r, p.payload); err != nil {
			return packet{}, fmt.Errorf("adb packet: payload cut short: %w", err)
		}
	}
	return p, nil
}

// append adds the packet's bytes to b. The checksum is written although current adb ignores it, for those that do not.
func (p packet) append(b []byte) []byte {
	var sum uint32
	for _, c := range p.payload {
		sum += uint32(c)
	}
	for _, v := range [...]uint32{p.command, p.arg0, p.arg1, uint32(len(p.payload)), sum, ^p.command} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return append(b, p.payload...)
}
