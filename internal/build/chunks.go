package build

import (
	"encoding/binary"
	"errors"
)

// The chunk types and the flag of Android's binary XML that matter here (ResourceTypes.h of Android).
const (
	chunkStringPool = 0x0001
	chunkXML        = 0x0003
	flagUTF8        = 1 << 8

	chunkHeaderSize = 8
	poolHeaderSize  = 28
)

// maxStrings bounds the bytes of all strings of a manifest together: they may overlap in the file.
const maxStrings = 32 << 20

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
	for at := int64(binary.LittleEndian.Uint16(data[2:])); at < end; {
		if at+chunkHeaderSize > end {
			return errDamaged
		}
		size := int64(binary.LittleEndian.Uint32(data[at+4:]))
		if size < chunkHeaderSize || at+size > end {
			return errDamaged
		}
		if binary.LittleEndian.Uint16(data[at:]) == chunkStringPool {
			if err := checkPool(data[at : at+size]); err != nil {
				return err
			}
		}
		at += size
	}
	return nil
}

func checkPool(pool []byte) error {
	if len(pool) < poolHeaderSize {
		return errDamaged
	}
	word := func(at int64) int64 { return int64(binary.LittleEndian.Uint32(pool[at:])) }
	strings, styles, flags, start := word(8), word(12), word(16), word(20)
	if 4*(strings+styles) > int64(len(pool)-poolHeaderSize) {
		return errDamaged
	}
	var total int64
	for i := range strings {
		size, err := stringSize(pool, start+word(poolHeaderSize+4*i), flags&flagUTF8 != 0)
		if err != nil {
			return err
		}
		if total += size; total > maxStrings {
			return errDamaged
		}
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
