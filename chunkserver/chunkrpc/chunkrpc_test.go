package chunkrpc

import (
	"bytes"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/rpc"
	"agentdrive/internal/rpc/rpcerr"
	"agentdrive/internal/wire"
)

var _ rpc.BufferMessage = (*Message)(nil)

func samples() []wire.Message {
	g := chunk.Grant{Cluster: [16]byte{1}, Owner: chunk.Owner{Group: 1, Session: 1 << 60}, Rights: 7, Expires: -5, Signature: []byte("sig")}
	ids := []chunk.BlockID{{1}, {2}}
	return []wire.Message{
		&Empty{},
		&PutRequest{Grant: g, ID: ids[0], Owner: g.Owner, Sums: []uint32{1, 1<<32 - 1}},
		&GetRequest{Grant: g, ID: ids[0], Off: 1, Length: 2},
		&GetReply{Sum: 9},
		&FetchRequest{Grant: g, ID: ids[1]},
		&FetchReply{Owner: g.Owner, Sums: []uint32{4}},
		&HasRequest{Grant: g, IDs: ids},
		&HasReply{Has: []bool{true, false}},
		&DeleteRequest{Grant: g, IDs: ids},
		&ListRequest{Grant: g, After: ids[0], Limit: -1},
		&ListRequest{Grant: g, Owned: true, Owner: g.Owner, Limit: 10},
		&ListReply{Infos: []chunk.Info{{ID: ids[0], Owner: g.Owner, Len: 3}}},
		&StatusReply{chunk.Status{Blocks: 1, Live: 2, Used: 3, Free: 4, ReadOnly: true}},
		&PullRequest{Grant: g, From: "host:1", IDs: ids},
		&PullReply{Results: []rpcerr.Record{{}, rpcerr.NewRecord(errs.E("op", errs.IO, "m", nil))}},
	}
}

func fresh(m wire.Message) wire.Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(wire.Message)
}

func TestMessages(t *testing.T) {
	payload := []byte("payload")
	for _, want := range samples() {
		out, err := NewMessage(want, payload).MarshalBuffers()
		if err != nil {
			t.Fatal(err)
		}
		whole := out.Materialize()
		for _, in := range []*Message{{}, Pooled()} {
			// In pieces of five bytes, as gRPC may deliver it.
			var pieces mem.BufferSlice
			for p := range slices.Chunk(whole, 5) {
				pieces = append(pieces, mem.SliceBuffer(p))
			}
			if err := in.UnmarshalBuffers(pieces); err != nil {
				t.Fatal(err)
			}
			got := fresh(want)
			if err := in.Decode(got); err != nil || !reflect.DeepEqual(got, want) || !bytes.Equal(in.Payload, payload) {
				t.Errorf("%T came back as %+v, %v", want, got, err)
			}
			in.Free()
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, b := range [][]byte{nil, {0, 0, 0}, {0, 0, 0, 1}, {255, 255, 255, 255, 1}, {0, 0, 0, 1, 0}, {0, 0, 0, 1, 99}} {
		var m Message
		if err := m.UnmarshalBuffers(mem.BufferSlice{mem.SliceBuffer(b)}); err != nil {
			t.Fatal(err)
		}
		if err := m.Decode(&Empty{}); !errs.Is(err, errs.Corrupt) && !errs.Is(err, errs.Version) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func FuzzHeaders(f *testing.F) {
	for i, m := range samples() {
		f.Add(uint8(i), wire.Marshal(nil, Version, m))
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		all := samples()
		m := fresh(all[int(which)%len(all)])
		if wire.Unmarshal(b, Version, m) != nil {
			return
		}
		if got := wire.Marshal(nil, Version, m); !bytes.Equal(got, b) {
			t.Fatalf("%T: %x decodes and encodes to %x", m, b, got)
		}
	})
}

func FuzzSplit(f *testing.F) {
	out, _ := NewMessage(&Empty{}, []byte("x")).MarshalBuffers()
	f.Add(out.Materialize())
	f.Fuzz(func(t *testing.T, b []byte) {
		header, payload := split(b)
		if header != nil && len(b) != 4+len(header)+len(payload) {
			t.Fatalf("%d bytes split into %d and %d", len(b), len(header), len(payload))
		}
	})
}
