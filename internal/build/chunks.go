package build

import (
	"encoding/binary"
	"errors"
)

// The chunk types and the flag of Android's binary XML that matter here (ResourceTypes.h of Android).
const (
	chunkStringPool = 0x0001
	chunkXML        = 0x0003
	chunkNamespace  = 0x0100
	chunkElement    = 0x0102
	chunkElementEnd = 0x0103
	flagUTF8        = 1 << 8

	chunkHeaderSize = 8
	poolHeaderSize  = 28
)

// maxStrings bounds the bytes of all strings of a manifest together: they may overlap in the file.
const maxStrings = 32 << 20

// maxText bounds a manifest as text.
const maxText = 64 << 20

var errDamaged = errors.New("its parts do not fit together")

// checkChunks refuses binary XML whose chunks, or the strings in them, do not lie within the file.
func checkChunks(data []byte) error {
	if len(data) < chunkHeaderSize || binary.LittleEndian.Uint16(data) != chunkXML {
		return errors.New("it is not in Android's binary form: it was not made by an Android build")
	}
	end := int64(binary.LittleEndian.Uint32(data[4:]))
	if end > int64(len(data)) {
		return errDamaged
	}
	var text written
	for at := int64(binary.LittleEndian.Uint16(data[2:])); at < end; {
		if at+chunkHeaderSize > end {
			return errDamaged
		}
		size := int64(binary.LittleEndian.Uint32(data[at+4:]))
		if size < chunkHeaderSize || at+size > end {
			return errDamaged
		}
		switch chunk := data[at : at+size]; binary.LittleEndian.Uint16(chunk) {
		case chunkStringPool:
			if text.sizes != nil {
				return errDamaged // a manifest has one
			}
			var err error
			if text.sizes, err = checkPool(chunk); err != nil {
				return err
			}
		case chunkNamespace, chunkElement, chunkElementEnd:
			if text.sizes == nil {
				return errDamaged
			}
			if err := text.add(chunk); err != nil {
				return err
			}
		}
		at += size
	}
	return nil
}

func checkPool(pool []byte) (sizes []int64, err error) {
	if len(pool) < poolHeaderSize {
		return nil, errDamaged
	}
	word := func(at int64) int64 { return int64(binary.LittleEndian.Uint32(pool[at:])) }
	strings, styles, flags, start := word(8), word(12), word(16), word(20)
	if 4*(strings+styles) > int64(len(pool)-poolHeaderSize) {
		return nil, errDamaged
	}
	var total int64
	for i := range strings {
		size, err := stringSize(pool, start+word(poolHeaderSize+4*i), flags&flagUTF8 != 0)
		if err != nil {
			return nil, err
		}
		sizes = append(sizes, size)
		if total += size; total > maxStrings {
			return nil, errDamaged
		}
	}
	return sizes, nil
}

// written counts the bytes that the library makes of a manifest: it writes it as text, and every string each time that it is named.
type written struct {
	sizes  []int64 // of the strings
	prefix int64   // of the longest prefix of a namespace
	total  int64
}

const (
	noString      = 0xffffffff
	attributeSize = 20
	escaped       = 6 // bytes that a character of a value takes at most
)

func (w *written) add(chunk []byte) error {
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(chunk[at:]) }
	half := func(at int) int { return int(binary.LittleEndian.Uint16(chunk[at:])) }
	size := func(at int) int64 {
		if ref := word(at); int64(ref) < int64(len(w.sizes)) {
			return w.sizes[ref]
		}
		return 0 // which the library refuses, or writes as a number
	}
	name := func(at int) int64 {
		if word(at) != noString {
			return w.prefix + size(at+4)
		}
		return size(at + 4)
	}
	head, kind := half(2), half(0)
	if head+8 > len(chunk) {
		return errDamaged
	}
	if kind == chunkNamespace {
		w.prefix = max(w.prefix, size(head))
		w.total += size(head) + escaped*size(head+4)
	} else {
		w.total += name(head)
	}
	if kind == chunkElement {
		if head+20 > len(chunk) {
			return errDamaged
		}
		at, step := head+half(head+8), half(head+10)
		if half(head+12) > 0 && step < attributeSize {
			return errDamaged // they would lie over each other, and a small file have any number of them
		}
		for range half(head + 12) {
			if at > 0xffff || at+attributeSize > len(chunk) {
				return errDamaged
			}
			w.total += name(at) + escaped*size(at+8)
			at += step
			if w.total > maxText {
				return errDamaged
			}
		}
	}
	if w.total > maxText {
		return errDamaged
	}
	return nil
}

// stringSize is the size in bytes of the string at an offset of a pool. Its length comes first, in one unit
// or, where that has its highest bit set, in two; UTF-8 strings have their length in UTF-16 before that.
func stringSize(pool []byte, at int64, utf8 bool) (int64, error) {
	unit := func() (int64, bool) {
		if at+2 > int64(len(pool)) {
			return 0, false
		}
		at += 2
		return int64(binary.LittleEndian.Uint16(pool[at-2:])), true
	}
	bits, width := 15, int64(2)
	if utf8 {
		bits, width = 7, 1
		unit = func() (int64, bool) {
			if at+1 > int64(len(pool)) {
				return 0, false
			}
			at++
			return int64(pool[at-1]), true
		}
	}
	length := func() (int64, bool) {
		n, ok := unit()
		if high := int64(1) << bits; ok && n&high != 0 {
			var low int64
			low, ok = unit()
			n = (n&(high-1))<<(bits+1) | low
		}
		return n, ok
	}
	n, ok := length()
	if utf8 && ok {
		n, ok = length()
	}
	if !ok || at+n*width > int64(len(pool)) {
		return 0, errDamaged
	}
	return n * width, nil
}
