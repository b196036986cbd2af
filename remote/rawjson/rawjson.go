// Package rawjson is encoding/json for values whose strings may be any bytes, as the names of
// files are. JSON text is UTF-8, and encoding/json puts U+FFFD in the place of what is not,
// so that one file is taken for another.
//
// A string field KEY that is no UTF-8 is written as two members:
//
//	"KEY":       percent-encoded, to be looked at: w%FF
//	"KEY_bytes": the bytes, in base64
//
// and so is a list of strings one of which is no UTF-8, with KEY_bytes a list of the same
// length. Read, KEY_bytes counts. What is read must be UTF-8: ErrNotUTF8.
package rawjson

import (
	"bytes"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// Suffix ends the name of the member that has the bytes.
const Suffix = "_bytes"

// ErrNotUTF8 says that JSON text has bytes, or halves of UTF-16 surrogates, that no text
// has; a reader would have to guess what is meant.
var ErrNotUTF8 = errors.New("JSON text that is not UTF-8: give the bytes of KEY in base64 as KEY" + Suffix)

// Marshal returns a value as JSON.
func Marshal(v any) ([]byte, error) {
	b, err := plain(v)
	if err != nil || !bytes.Contains(b, []byte(`\ufffd`)) { // as plain writes bytes that are no UTF-8, and nothing else
		return b, err
	}
	return appendValue(nil, reflect.ValueOf(v))
}

// Write writes a value as JSON on a line of its own.
func Write(w io.Writer, v any) error {
	b, err := Marshal(v)
	if err == nil {
		_, err = w.Write(append(b, '\n'))
	}
	return err
}

func plain(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

// appendValue appends a value with the members for bytes.
func appendValue(b []byte, v reflect.Value) ([]byte, error) {
	switch kind := v.Kind(); {
	case kind == reflect.Invalid, (kind == reflect.Pointer || kind == reflect.Interface) && v.IsNil():
		return append(b, "null"...), nil
	case ownJSON(v.Type()):
	case kind == reflect.Pointer || kind == reflect.Interface:
		return appendValue(b, v.Elem())
	case kind == reflect.String:
		return appendPlain(b, readable(v.String()))
	case kind == reflect.Struct:
		return appendStruct(b, v)
	case kind == reflect.Slice && !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8:
		return appendList(b, v)
	}
	return appendPlain(b, v.Interface())
}

func appendPlain(b []byte, v any) ([]byte, error) {
	one, err := plain(v)
	return append(b, one...), err
}

func appendList(b []byte, v reflect.Value) ([]byte, error) {
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = appendValue(b, v.Index(i)); err != nil {
			return b, err
		}
	}
	return append(b, ']'), nil
}

func appendStruct(b []byte, v reflect.Value) ([]byte, error) {
	b = append(b, '{')
	first := true
	member := func(key string, v reflect.Value) (err error) {
		if !first {
			b = append(b, ',')
		}
		first = false
		if b, err = appendPlain(b, key); err == nil {
			b, err = appendValue(append(b, ':'), v)
		}
		return err
	}
	for _, f := range reflect.VisibleFields(v.Type()) {
		key, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		// Of an embedded pointer that is nil this is an error, and FieldByIndex would panic.
		value, err := v.FieldByIndexErr(f.Index)
		switch {
		case err != nil, !f.IsExported(), key == "-": // below a nil pointer, or not for JSON
			continue
		case f.Anonymous && key == "" && f.Type.Kind() == reflect.Struct && !ownJSON(f.Type):
			continue // its fields are visible, too
		case strings.Contains(options, "omitempty") && isEmpty(value), strings.Contains(options, "omitzero") && value.IsZero():
			continue
		}
		if key == "" {
			key = f.Name
		}
		err = member(key, value)
		if raw := bytesOf(value); err == nil && raw != nil {
			err = member(key+Suffix, reflect.ValueOf(raw))
		}
		if err != nil {
			return b, err
		}
	}
	return append(b, '}'), nil
}

// bytesOf returns what KEY_bytes is of a field: nil, a []byte or a [][]byte.
func bytesOf(v reflect.Value) any {
	if v.Kind() == reflect.Pointer && !v.IsNil() {
		v = v.Elem()
	}
	switch {
	case ownJSON(v.Type()):
	case v.Kind() == reflect.String && !utf8.ValidString(v.String()):
		return []byte(v.String())
	case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.String && !ownJSON(v.Type().Elem()):
		list := make([][]byte, v.Len())
		for i := range list {
			list[i] = []byte(v.Index(i).String())
		}
		// The whole list or nothing: by position, each shown name has its bytes.
		if slices.ContainsFunc(list, func(b []byte) bool { return !utf8.Valid(b) }) {
			return list
		}
	}
	return nil
}

func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Slice, reflect.Map, reflect.Array, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

var (
	jsonMarshaler = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// ownJSON reports a type that writes itself.
func ownJSON(t reflect.Type) bool {
	return t.Implements(jsonMarshaler) || t.Implements(textMarshaler)
}

// readable percent-encodes what is no UTF-8; url.PathUnescape undoes it.
func readable(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == '%' || r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, "%%%02X", s[i])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
	}
	return b.String()
}

// Unmarshal reads a value from JSON.
func Unmarshal(b []byte, to any) error { return unmarshal(b, to, false) }

// UnmarshalStrict is Unmarshal, and refuses members that the value has no field for.
func UnmarshalStrict(b []byte, to any) error { return unmarshal(b, to, true) }

// Read reads one value, and whatever follows it.
func Read(r io.Reader, to any) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return Unmarshal(b, to)
}

func unmarshal(b []byte, to any, strict bool) error {
	// encoding/json would put U+FFFD there, and two names would become one.
	if !utf8.Valid(b) || halfSurrogate(b) {
		return ErrNotUTF8
	}
	has := hasBytes(b)
	if has {
		var tree any
		d := json.NewDecoder(bytes.NewReader(b))
		// Through a float64 inode numbers and sizes above 2^53 would change.
		d.UseNumber()
		err := d.Decode(&tree)
		if err == nil {
			tree, err = substitute(tree)
		}
		if err == nil {
			b, err = json.Marshal(tree)
		}
		if err != nil {
			return err
		}
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if strict {
		d.DisallowUnknownFields()
	}
	if err := d.Decode(to); err != nil {
		return err
	}
	// A second value would be passed over without a word.
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	if has {
		restore(reflect.ValueOf(to))
	}
	return nil
}

// halfSurrogate reports an escape such as \udcff without its other half, of which
// encoding/json makes U+FFFD. Python writes bytes that are no UTF-8 so.
func halfSurrogate(b []byte) bool {
	if !bytes.Contains(b, []byte(`\u`)) {
		return false
	}
	high := false // what came just before was a first half
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' || i+1 >= len(b) {
			if high {
				return true
			}
			continue
		}
		if b[i+1] != 'u' || i+6 > len(b) {
			if high {
				return true
			}
			i++
			continue
		}
		unit := strings.ToLower(string(b[i+2 : i+6]))
		first, second := unit >= "d800" && unit < "dc00", unit >= "dc00" && unit < "e000"
		if second != high {
			return true
		}
		high = first
		i += 5
	}
	return high
}

// hasBytes reports JSON text with a member for bytes. Numbers may have names with that ending.
func hasBytes(b []byte) bool {
	end := []byte(Suffix + `"`)
	for {
		i := bytes.Index(b, end)
		if i < 0 {
			return false
		}
		b = bytes.TrimLeft(b[i+len(end):], " \t\r\n:")
		if len(b) > 0 && (b[0] == '"' || b[0] == '[') {
			return true
		}
	}
}

// mark begins a string that is bytes in base64, between substitute and restore. No name has a NUL.
const mark = "\x00"

// substitute puts the members for bytes in the place of those to be looked at.
func substitute(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		for i := range v {
			if _, err := substitute(v[i]); err != nil {
				return v, err
			}
		}
	case map[string]any:
		for key, raw := range v {
			base, ok := strings.CutSuffix(key, Suffix)
			if !ok {
				if _, err := substitute(raw); err != nil {
					return v, err
				}
				continue
			}
			switch raw := raw.(type) {
			case string:
				if err := checkBytes(key, raw); err != nil {
					return v, err
				}
				// The bytes win over the shown text, which is made from them.
				v[base] = mark + raw
			case []any:
				for i := range raw {
					s, ok := raw[i].(string)
					if err := checkBytes(key, s); err != nil || !ok {
						return v, errors.Join(err, fmt.Errorf("%s: no list of strings", key))
					}
					raw[i] = mark + s
				}
				v[base] = raw
			default:
				continue
			}
			// Else strict decoding would not know the member.
			delete(v, key)
		}
	}
	return v, nil
}

func checkBytes(key, s string) error {
	if _, err := base64.StdEncoding.DecodeString(s); err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return nil
}

// restore undoes mark in all strings that a pointer leads to.
func restore(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		restore(v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() || f.Anonymous {
				restore(v.Field(i))
			}
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			restore(v.Index(i))
		}
	case reflect.String:
		if raw, ok := strings.CutPrefix(v.String(), mark); ok && v.CanSet() {
			if b, err := base64.StdEncoding.DecodeString(raw); err == nil {
				v.SetString(string(b))
			}
		}
	}
}
