package meta

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

// filler fills values with random content that is valid on the wire.
type filler struct{ r *rand.Rand }

func (f *filler) fill(v reflect.Value) {
	switch v.Interface().(type) {
	case Extent:
		v.Set(reflect.ValueOf(f.extent()))
		return
	case NewBlock:
		v.Set(reflect.ValueOf(NewBlock{ID: f.id(), PG: f.r.Uint32(), Epoch: f.r.Uint64(), Len: 1 + f.r.Uint32N(chunk.MaxBlock),
			Acked: []chunk.ServerID{1, 2}, Missing: []chunk.ServerID{3}}))
		return
	case Outcome:
		v.Set(reflect.ValueOf(f.outcome()))
		return
	case LeaseKind:
		v.SetUint(f.r.Uint64N(uint64(LeaseWrite) + 1))
		return
	case RecallMode:
		v.SetUint(uint64(RecallQuery) + f.r.Uint64N(uint64(RecallDrain)))
		return
	case FileLock:
		start := f.r.Uint64() >> f.r.IntN(64)
		v.Set(reflect.ValueOf(FileLock{Ino: Ino(f.r.Uint64()), Flock: f.r.IntN(2) == 0, Owner: f.r.Uint64(),
			Kind: LockKind(f.r.Uint32N(uint32(LockExcl) + 1)), Start: start, End: start + f.r.Uint64N(LockEOF-start), PID: f.r.Uint32()}))
		return
	case *errs.Error:
		v.Set(reflect.ValueOf(f.error()))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(f.r.IntN(2) == 0)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(f.r.Uint64() >> f.r.IntN(64) >> (64 - v.Type().Bits()))
	case reflect.Int64:
		v.SetInt(int64(f.r.Uint64()) >> f.r.IntN(64))
	case reflect.String:
		v.SetString(string(f.bytes()))
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(f.bytes())
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 1+f.r.IntN(3), 4))
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			f.fill(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Interface: // Op
		v.Set(reflect.ValueOf(f.op()))
	default:
		panic("cannot fill " + v.Type().String())
	}
}

func (f *filler) bytes() []byte {
	b := make([]byte, 1+f.r.IntN(20))
	for i := range b {
		b[i] = byte(f.r.Uint32())
	}
	return b
}

func (f *filler) id() (id chunk.BlockID) {
	copy(id[:], f.bytes())
	return id
}

func (f *filler) extent() Extent {
	e := Extent{Off: f.r.Uint64N(MaxSize / 2)}
	if f.r.IntN(2) == 0 {
		e.Kind, e.Inline = ExtentInline, f.bytes()
		e.Len = uint32(len(e.Inline))
		return e
	}
	e.Kind, e.Block, e.BlockOff, e.Len = ExtentBlock, f.id(), f.r.Uint32N(1<<20), 1+f.r.Uint32N(1<<20)
	return e
}

func (f *filler) error() *errs.Error {
	return errs.E("op", errs.NotExist, string(f.bytes()), nil).WithHint("hint")
}

func (f *filler) outcome() Outcome {
	if f.r.IntN(4) == 0 {
		return Outcome{Err: f.error()}
	}
	for {
		if res := newResult(ResultKind(f.r.IntN(256))); res != nil {
			f.fill(reflect.ValueOf(res).Elem())
			return Outcome{Result: res}
		}
	}
}

func (f *filler) op() Op {
	for {
		if op := NewOp(OpKind(f.r.IntN(256))); op != nil {
			f.fill(reflect.ValueOf(op).Elem())
			return op
		}
	}
}

// normal makes what does not travel equal: fields that a flag leaves out.
func normal(f Frame) {
	switch x := f.(type) {
	case *LogAck:
		if !x.Refused {
			x.Err = nil
		}
	case *Reply:
		normalOutcome(&x.Outcome)
	}
}

func normalOutcome(o *Outcome) {
	d, ok := o.Result.(*DirResult)
	if !ok || d.Plus {
		return
	}
	for i := range d.Entries {
		d.Entries[i].Attr = Attr{Ino: d.Entries[i].Attr.Ino, Mode: d.Entries[i].Attr.Mode}
	}
}

// TestRoundTrip encodes and decodes every frame, operation and result.
func TestRoundTrip(t *testing.T) {
	frames, ops, results := 0, 0, 0
	for seed := range uint64(50) {
		f := &filler{rand.New(rand.NewPCG(seed, 2))}
		for k := range 256 {
			if frame := newFrame(FrameKind(k)); frame != nil {
				frames++
				f.fill(reflect.ValueOf(frame).Elem())
				normal(frame)
				if frame.FrameKind() != FrameKind(k) {
					t.Fatalf("%T has kind %d, is made for %d", frame, frame.FrameKind(), k)
				}
				got, err := DecodeFrame(EncodeFrame(nil, frame))
				if err != nil || !reflect.DeepEqual(got, frame) {
					t.Fatalf("seed %d: %v\n%+v\n%+v", seed, err, frame, got)
				}
			}
			if op := NewOp(OpKind(k)); op != nil {
				ops++
				f.fill(reflect.ValueOf(op).Elem())
				if op.Kind() != OpKind(k) {
					t.Fatalf("%T has kind %d, is made for %d", op, op.Kind(), k)
				}
				got := &opRecord{}
				if err := wire.Unmarshal(wire.Marshal(nil, 1, &opRecord{op}), 1, got); err != nil || !reflect.DeepEqual(got.op, op) {
					t.Fatalf("seed %d: %v\n%+v\n%+v", seed, err, op, got.op)
				}
			}
			if res := newResult(ResultKind(k)); res != nil {
				results++
				f.fill(reflect.ValueOf(res).Elem())
				out := Outcome{Result: res}
				normalOutcome(&out)
				if res.ResultKind() != ResultKind(k) {
					t.Fatalf("%T has kind %d, is made for %d", res, res.ResultKind(), k)
				}
				var got Outcome
				if err := wire.Unmarshal(wire.Marshal(nil, 1, &out), 1, &got); err != nil || !reflect.DeepEqual(got, out) {
					t.Fatalf("seed %d: %v\n%+v\n%+v", seed, err, out, got)
				}
			}
		}
	}
	if frames < 14*50 || ops < 18*50 || results < 9*50 {
		t.Errorf("only %d frames, %d operations, %d results", frames, ops, results)
	}
}

// opRecord is an operation as a record of its own.
type opRecord struct{ op Op }

func (x *opRecord) Wire(c *wire.Coder) { WireOp(c, &x.op) }

// FuzzDecodeFrame: what decodes, encodes to the same bytes.
func FuzzDecodeFrame(f *testing.F) {
	fill := &filler{rand.New(rand.NewPCG(1, 2))}
	for k := range 256 {
		if frame := newFrame(FrameKind(k)); frame != nil {
			fill.fill(reflect.ValueOf(frame).Elem())
			f.Add(EncodeFrame(nil, frame))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, err := DecodeFrame(b)
		if err != nil {
			return
		}
		if again := EncodeFrame(nil, frame); !bytes.Equal(again, b) {
			t.Errorf("%T: %x became %x", frame, b, again)
		}
	})
}

// FuzzOutcome: what decodes, encodes to the same bytes.
func FuzzOutcome(f *testing.F) {
	fill := &filler{rand.New(rand.NewPCG(1, 3))}
	for range 30 {
		out := fill.outcome()
		f.Add(wire.Marshal(nil, 1, &out))
	}
	f.Fuzz(func(t *testing.T, b []byte) { law(t, b, &Outcome{}) })
}

// FuzzOp: what decodes, encodes to the same bytes.
func FuzzOp(f *testing.F) {
	fill := &filler{rand.New(rand.NewPCG(1, 4))}
	for k := range 256 {
		if op := NewOp(OpKind(k)); op != nil {
			fill.fill(reflect.ValueOf(op).Elem())
			f.Add(wire.Marshal(nil, 1, &opRecord{op}))
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) { law(t, b, &opRecord{}) })
}

// FuzzDecodeBatch: what decodes, encodes to the same bytes.
func FuzzDecodeBatch(f *testing.F) {
	f.Add(EncodeBatch(nil, [][]byte{EncodeFrame(nil, &Renew{Seq: 5}), EncodeFrame(nil, &Close{})}))
	short := EncodeFrame(nil, &Close{})
	f.Add(append([]byte{0x80 | byte(len(short)), 0}, short...)) // a length longer than it need be
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := DecodeBatch(b)
		if err != nil {
			return
		}
		var frames [][]byte
		for _, frame := range list {
			frames = append(frames, EncodeFrame(nil, frame))
		}
		if again := EncodeBatch(nil, frames); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

// FuzzGreeting: what decodes, encodes to the same bytes.
func FuzzGreeting(f *testing.F) {
	f.Add(EncodeGreeting(Greeting{Cluster: [16]byte{1}, Group: 300}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := DecodeGreeting(b); err == nil && !bytes.Equal(EncodeGreeting(g), b) {
			t.Errorf("%x became %x", b, EncodeGreeting(g))
		}
	})
}

func law(t *testing.T, b []byte, x wire.Message) {
	if wire.Unmarshal(b, 1, x) != nil {
		return
	}
	if again := wire.Marshal(nil, 1, x); !bytes.Equal(again, b) {
		t.Errorf("%T: %x became %x", x, b, again)
	}
}
