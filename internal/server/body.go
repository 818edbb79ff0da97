package server

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// body is the body of a request that comes often. huma decodes a body into maps to validate these, and once more into the
// type; this one is held against its schema as it is read. Only where that leaves a doubt huma validates it, so that
// what is refused, and in which words, is huma's to say.
type body[T any] struct {
	Value T

	decoded bool
	faults  []error
}

// form is what a body has to be.
type form struct {
	registry huma.Registry
	schema   *huma.Schema
	shape    *shape
}

// formed is every body[T].
type formed interface {
	huma.SchemaProvider
	decode(data []byte, f form) error
}

// formBody notes the form of an operation's body, and says whether it is a body[T].
func (s *Server) formBody(input reflect.Type, r huma.Registry) bool {
	field, ok := input.FieldByName("Body")
	if !ok {
		return false
	}
	b, ok := reflect.New(field.Type).Interface().(formed)
	if ok {
		schema := b.Schema(r)
		s.forms[reflect.TypeOf(b)] = form{r, schema, shapeOf(r, schema)}
	}
	return ok
}

// decode is unmarshal, for each body[T] by its form.
func (s *Server) decode(data []byte, v any) error {
	if b, ok := v.(formed); ok {
		return b.decode(data, s.forms[reflect.TypeOf(b)])
	}
	return unmarshal(data, v)
}

// Schema makes a body look like its value in the OpenAPI document.
func (*body[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

func (b *body[T]) decode(data []byte, f form) error {
	b.decoded = true
	if b.surely(data, f.shape) {
		return nil
	}
	var parsed any
	if err := unmarshal(data, &parsed); err != nil {
		return err
	}
	var found huma.ValidateResult
	huma.Validate(f.registry, f.schema, huma.NewPathBuffer([]byte("body"), len("body")), huma.ModeWriteToServer, parsed, &found)
	if b.faults = found.Errors; len(b.faults) > 0 {
		return nil
	}
	b.Value = *new(T)
	return unmarshal(data, &b.Value)
}

// surely decodes what huma would find nothing wrong with.
func (b *body[T]) surely(data []byte, s *shape) bool {
	return s != nil && jsonv2.Unmarshal(data, s) == nil && jsonv2.Unmarshal(data, &b.Value) == nil
}

// Resolve tells huma what is wrong with the body.
func (b *body[T]) Resolve(huma.Context) []error {
	if !b.decoded { // no decoder for its Content-Type
		return []error{huma.Error415UnsupportedMediaType("")}
	}
	return b.faults
}

var _ huma.Resolver = (*body[struct{}])(nil)

// shape is a schema, ready to be held against JSON as it is read.
type shape struct {
	kind        jsontext.Kind
	integer     bool
	least, most float64 // of a number; of a string's runes; of an array's items
	enum        []any   // of a string, if any
	properties  map[string]property
	required    uint64 // their bits
	items       *shape // of an array; of an object, what is no property
}

type property struct {
	bit   uint64
	shape *shape
}

// understood are the keywords that shapeOf reads or may pass over, by type. A null is in doubt, whatever Nullable says;
// huma gives a format of numbers no meaning.
var understood = map[string][]string{
	huma.TypeBoolean: {},
	huma.TypeInteger: {"Format", "Minimum", "Maximum"},
	huma.TypeNumber:  {"Format", "Minimum", "Maximum"},
	huma.TypeString:  {"Enum", "MinLength", "MaxLength"},
	huma.TypeArray:   {"Items", "MinItems", "MaxItems"},
	huma.TypeObject:  {"Properties", "Required", "AdditionalProperties"},
	"":               {"Type", "Description", "Nullable", "WriteOnly"}, // of every type
}

// shapeOf is nil for a schema that it does not understand in full: what has to be like that is always in doubt. A schema
// must not contain itself.
func shapeOf(r huma.Registry, s *huma.Schema) *shape {
	for s.Ref != "" {
		s = r.SchemaFromRef(s.Ref)
	}
	for f, v := range reflect.ValueOf(*s).Fields() {
		given := f.IsExported() && !v.IsZero() && (v.Kind() != reflect.Map || v.Len() > 0)
		if given && !slices.Contains(understood[s.Type], f.Name) && !slices.Contains(understood[""], f.Name) {
			return nil
		}
	}
	shape := &shape{least: math.Inf(-1), most: math.Inf(1), enum: s.Enum}
	switch s.Type {
	case huma.TypeBoolean:
		shape.kind = jsontext.KindTrue
	case huma.TypeInteger, huma.TypeNumber:
		shape.kind, shape.integer = jsontext.KindNumber, s.Type == huma.TypeInteger
		bound(shape, s.Minimum, s.Maximum)
	case huma.TypeString:
		shape.kind = jsontext.KindString
		bound(shape, s.MinLength, s.MaxLength)
	case huma.TypeArray:
		shape.kind, shape.items = jsontext.KindBeginArray, shapeOf(r, s.Items)
		bound(shape, s.MinItems, s.MaxItems)
	case huma.TypeObject:
		shape.kind, shape.properties = jsontext.KindBeginObject, map[string]property{}
		if others, ok := s.AdditionalProperties.(*huma.Schema); ok {
			shape.items = shapeOf(r, others)
		}
		for name, p := range s.Properties {
			shape.properties[name] = property{1 << len(shape.properties), shapeOf(r, p)}
		}
		for _, name := range s.Required {
			shape.required |= shape.properties[name].bit
		}
		if len(shape.properties) > 64 {
			return nil // more than there are bits
		}
	default:
		return nil
	}
	return shape
}

func bound[N int | float64](s *shape, least, most *N) {
	if least != nil {
		s.least = float64(*least)
	}
	if most != nil {
		s.most = float64(*most)
	}
}

var errDoubt = errors.New("not surely of the schema")

// UnmarshalJSONFrom reads one value and keeps nothing of it. An error means that the value may not be of the schema.
func (s *shape) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if !s.fits(d) {
		return errDoubt
	}
	return nil
}

func (s *shape) fits(d *jsontext.Decoder) bool {
	kind := d.PeekKind()
	if kind == jsontext.KindFalse {
		kind = jsontext.KindTrue
	}
	if s == nil || kind != s.kind {
		return false
	}
	if kind == jsontext.KindBeginArray || kind == jsontext.KindBeginObject {
		_, begin := d.ReadToken()
		fit := kind == jsontext.KindBeginArray && s.array(d) || kind == jsontext.KindBeginObject && s.object(d)
		_, end := d.ReadToken()
		return begin == nil && fit && end == nil
	}
	value, err := d.ReadValue()
	if err != nil {
		return false
	}
	return kind == jsontext.KindTrue || kind == jsontext.KindString && s.text(value[1:len(value)-1]) || kind == jsontext.KindNumber && s.number(string(value))
}

func (s *shape) array(d *jsontext.Decoder) bool {
	n := 0
	for ; d.PeekKind() != jsontext.KindEndArray; n++ {
		if !s.items.fits(d) {
			return false
		}
	}
	return s.within(float64(n))
}

// object leaves names that come twice to the decoder, which takes none.
func (s *shape) object(d *jsontext.Decoder) bool {
	missing := s.required
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadValue()
		if err != nil {
			return false
		}
		value := s.items
		if p, ok := s.properties[string(name[1:len(name)-1])]; ok {
			value, missing = p.shape, missing&^p.bit
		}
		if !value.fits(d) {
			return false
		}
	}
	return missing == 0
}

// text goes by how a string is written. What is escaped is longer than what it says, and unlike it.
func (s *shape) text(written []byte) bool {
	if (len(s.enum) > 0 || s.least > 0) && bytes.IndexByte(written, '\\') >= 0 {
		return false
	}
	if len(s.enum) > 0 && !slices.ContainsFunc(s.enum, func(e any) bool { return e == string(written) }) {
		return false
	}
	return s.within(float64(utf8.RuneCount(written)))
}

func (s *shape) number(written string) bool {
	if s.integer {
		n, err := strconv.ParseInt(written, 10, 64)
		return err == nil && s.within(float64(n))
	}
	n, err := strconv.ParseFloat(written, 64)
	return err == nil && s.within(n)
}

func (s *shape) within(n float64) bool { return n >= s.least && n <= s.most }
