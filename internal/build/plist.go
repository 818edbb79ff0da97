package build

import (
	"bytes"
	"encoding/binary"
)

// maxNodes is far beyond what an app's description holds: the library goes one call deeper for each that is within another, and no
// recover catches a stack that is used up.
const maxNodes = 20_000

// checkPlist refuses a property list that the library would take too much memory for.
func checkPlist(data []byte) error {
	if !bytes.HasPrefix(data, []byte("bplist")) {
		opened := 0
		for _, opening := range []string{"(", "{", "<"} {
			opened += bytes.Count(data, []byte(opening))
		}
		if opened > 5*maxNodes { // ends are counted, too
			return errDamaged
		}
		return nil
	}
	if len(data) < 40 {
		return errDamaged
	}
	trailer := data[len(data)-32:]
	width, objects, table := uint64(trailer[6]), binary.BigEndian.Uint64(trailer[8:]), binary.BigEndian.Uint64(trailer[24:])
	if width < 1 || width > 8 || objects > maxNodes || table > uint64(len(data)) || objects*width > uint64(len(data))-table {
		return errDamaged
	}
	var copied uint64 // UTF-16 strings, which may lie over each other
	for i := range objects {
		var at uint64
		for _, b := range data[table+i*width:][:width] {
			at = at<<8 | uint64(b)
		}
		if at < table && data[at]>>4 == 6 {
			if n := uint64(data[at] & 0xf); n < 0xf {
				copied += 2 * n
			} else {
				copied += table - at // at most
			}
		}
		if copied > maxStrings {
			return errDamaged
		}
	}
	return nil
}
