// Package wiretest checks the law of package wire: what decodes encodes to
// the same bytes, in any number of goroutines at once. Every package that describes layouts lists them in a fuzz
// test with Fuzz; internal/arch fails when one is missing.
package wiretest

import (
	"bytes"
	"reflect"
	"testing"

	"agentdrive/internal/wire"
)

// Fuzz feeds bytes to the decoders of the given types, as top-level records of
// versions up to maxVersion. Each message stands for its type; its value is a
// seed of the corpus.
func Fuzz(f *testing.F, maxVersion uint8, messages ...wire.Message) {
	for i, m := range messages {
		for v := uint8(1); v <= maxVersion; v++ {
			if b, ok := encode(v, m); ok {
				f.Add(uint16(i), b)
				f.Add(uint16(i), b[:len(b)/2])
				f.Add(uint16(i), append(b, 0))
			}
		}
		f.Add(uint16(i), bytes.Repeat([]byte{1}, 64))
		f.Add(uint16(i), append([]byte{1}, bytes.Repeat([]byte{0xff}, 64)...))
	}
	f.Fuzz(func(t *testing.T, which uint16, b []byte) {
		if int(which) >= len(messages) {
			return
		}
		m := reflect.New(reflect.TypeOf(messages[which]).Elem()).Interface().(wire.Message)
		in := bytes.Clone(b)
		if err := wire.Unmarshal(in, maxVersion, m); err != nil {
			return
		}
		done := make(chan struct{})
		go func() { // the race detector sees an encoder that writes into its message
			defer close(done)
			wire.Marshal(nil, b[0], m)
		}()
		got := wire.Marshal(nil, b[0], m)
		<-done
		if !bytes.Equal(got, b) {
			t.Fatalf("%T: %x decodes to %+v, which encodes to %x", m, b, m, got)
		}
	})
}

// encode is wire.Marshal for values that need not be valid: a zero value may
// break a rule of its type.
func encode(version uint8, m wire.Message) (b []byte, ok bool) {
	defer func() { ok = recover() == nil }()
	return wire.Marshal(nil, version, m), true
}
