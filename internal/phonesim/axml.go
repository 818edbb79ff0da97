package phonesim

import (
	"encoding/binary"
	"unicode/utf16"
)

// The chunks of Android's binary XML, from ResourceTypes.h of the Android sources.
const (
	chunkStringPool     = 0x0001
	chunkTable          = 0x0002
	chunkXML            = 0x0003
	chunkStartNamespace = 0x0100
	chunkEndNamespace   = 0x0101
	chunkStartElement   = 0x0102
	chunkEndElement     = 0x0103
	chunkResourceMap    = 0x0180
	chunkTablePackage   = 0x0200

	typeString  = 0x03
	typeInteger = 0x10
	typeBoolean = 0x12

	noString = 0xffffffff

	androidNamespace = "http://schemas.android.com/apk/res/android"
)

// attributeID are the resource ids of the attributes of the android namespace that a manifest here uses.
var attributeID = map[string]uint32{
	"label":            0x01010001,
	"name":             0x01010003,
	"debuggable":       0x0101000f,
	"exported":         0x01010010,
	"minSdkVersion":    0x0101020c,
	"versionCode":      0x0101021b,
	"versionName":      0x0101021c,
	"targetSdkVersion": 0x01010270,
}

// axmlElement is an element of an XML document to be written in binary form.
type axmlElement struct {
	name       string
	attributes []axmlAttribute
	children   []axmlElement
}

// axmlAttribute is an attribute with a value of string, int32 or bool. It is in the android namespace when its name
// is one of attributeID, which must be listed in the order of their ids.
type axmlAttribute struct {
	name  string
	value any
}

// encodeAXML writes a document in Android's binary form. The same document gives the same bytes.
func encodeAXML(root axmlElement) []byte {
	w := axmlWriter{index: map[string]uint32{}}
	// The strings that have a resource id come first: the resource map knows them by their place.
	w.collectAttributes(root)
	ids := w.ids
	prefix, uri := w.string("android"), w.string(androidNamespace)

	var body []byte
	namespace := func(kind uint16) []byte {
		return chunk(kind, 16, le32(1, noString), le32(prefix, uri))
	}
	body = append(body, namespace(chunkStartNamespace)...)
	body = w.element(body, root)
	body = append(body, namespace(chunkEndNamespace)...)

	pool := stringPool(w.strings)
	resources := chunk(chunkResourceMap, 8, le32(ids...))
	return chunk(chunkXML, 8, pool, resources, body)
}

type axmlWriter struct {
	strings []string
	index   map[string]uint32
	ids     []uint32
}

func (w *axmlWriter) string(s string) uint32 {
	i, ok := w.index[s]
	if !ok {
		i = uint32(len(w.strings))
		w.index[s] = i
		w.strings = append(w.strings, s)
	}
	return i
}

func (w *axmlWriter) collectAttributes(e axmlElement) {
	for _, a := range e.attributes {
		if id, ok := attributeID[a.name]; ok {
			if _, seen := w.index[a.name]; !seen {
				w.string(a.name)
				w.ids = append(w.ids, id)
			}
		}
	}
	for _, c := range e.children {
		w.collectAttributes(c)
	}
}

func (w *axmlWriter) element(b []byte, e axmlElement) []byte {
	name := w.string(e.name)
	var attributes []byte
	for _, a := range e.attributes {
		attributes = append(attributes, w.attribute(a)...)
	}
	const attributeStart, attributeSize = 20, 20
	ext := le32(noString, name)
	for _, v := range []uint16{attributeStart, attributeSize, uint16(len(e.attributes)), 0, 0, 0} {
		ext = binary.LittleEndian.AppendUint16(ext, v)
	}
	b = append(b, chunk(chunkStartElement, 16, le32(1, noString), ext, attributes)...)
	for _, c := range e.children {
		b = w.element(b, c)
	}
	return append(b, chunk(chunkEndElement, 16, le32(1, noString), le32(noString, name))...)
}

func (w *axmlWriter) attribute(a axmlAttribute) []byte {
	namespace, raw := uint32(noString), uint32(noString)
	if _, ok := attributeID[a.name]; ok {
		namespace = w.string(androidNamespace)
	}
	var kind byte
	var data uint32
	switch v := a.value.(type) {
	case string:
		kind, data = typeString, w.string(v)
		raw = data
	case int32:
		kind, data = typeInteger, uint32(v)
	case bool:
		kind = typeBoolean
		if v {
			data = 0xffffffff
		}
	}
	b := le32(namespace, w.string(a.name), raw)
	b = binary.LittleEndian.AppendUint16(b, 8)
	b = append(b, 0, kind)
	return binary.LittleEndian.AppendUint32(b, data)
}

// emptyTable is a resources.arsc without resources, which readers of APKs expect to be there.
func emptyTable(pkg string) []byte {
	name := make([]byte, 256)
	for i, c := range utf16.Encode([]rune(pkg)) {
		if 2*i+3 < len(name) {
			binary.LittleEndian.PutUint16(name[2*i:], c)
		}
	}
	const headerSize = 288
	types, keys := stringPool(nil), stringPool(nil)
	header := append(le32(0x7f), name...)
	header = append(header, le32(headerSize, 0, headerSize+uint32(len(types)), 0, 0)...)
	pack := chunk(chunkTablePackage, headerSize, header, types, keys)
	return chunk(chunkTable, 12, le32(1), stringPool(nil), pack)
}

// stringPool writes a pool of UTF-16 strings.
func stringPool(strings []string) []byte {
	var offsets, data []byte
	for _, s := range strings {
		offsets = binary.LittleEndian.AppendUint32(offsets, uint32(len(data)))
		units := utf16.Encode([]rune(s))
		if len(units) > 0x7fff {
			data = binary.LittleEndian.AppendUint16(data, uint16(len(units)>>16)|0x8000)
		}
		data = binary.LittleEndian.AppendUint16(data, uint16(len(units)))
		for _, u := range units {
			data = binary.LittleEndian.AppendUint16(data, u)
		}
		data = append(data, 0, 0)
	}
	for len(data)%4 != 0 {
		data = append(data, 0)
	}
	const headerSize = 28
	start := uint32(0)
	if len(strings) > 0 {
		start = headerSize + uint32(len(offsets))
	}
	return chunk(chunkStringPool, headerSize, le32(uint32(len(strings)), 0, 0, start, 0), offsets, data)
}

// chunk writes a chunk's kind, header size and whole size before its content.
func chunk(kind, headerSize uint16, parts ...[]byte) []byte {
	size := 8
	for _, p := range parts {
		size += len(p)
	}
	b := make([]byte, 0, size)
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint16(b, headerSize)
	b = binary.LittleEndian.AppendUint32(b, uint32(size))
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func le32(values ...uint32) []byte {
	b := make([]byte, 0, 4*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
