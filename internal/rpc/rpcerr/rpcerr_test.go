package rpcerr

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

func TestRoundTrip(t *testing.T) {
	for k := range 256 {
		if kind := errs.Kind(k); kind.Known() {
			err := errs.E("op", kind, "what", io.ErrUnexpectedEOF).WithHint("do this")
			got := FromStatus("call", "peer:1", ToStatus(err))
			if errs.KindOf(got) != kind || errs.HintOf(got) != "do this" ||
				got.Error() != "call: peer:1: op: what: unexpected EOF" {
				t.Errorf("%v came back as %v (kind %v, hint %q)", kind, got, errs.KindOf(got), errs.HintOf(got))
			}
		}
	}
}

func TestForeign(t *testing.T) {
	long := strings.Repeat("\xff", 10000)
	for _, tc := range []struct {
		name string
		err  error
		want errs.Kind
	}{
		{"plain", errors.New("boom"), errs.Other},
		{"wrapped kind", errors.Join(io.EOF, errs.E("x", errs.Quota, "", nil)), errs.Quota},
		{"canceled", context.Canceled, errs.Canceled},
		{"deadline", context.DeadlineExceeded, errs.Timeout},
		{"unknown kind", errs.E("x", errs.Kind(200), "", nil), errs.Other},
		{"long and no UTF-8", errs.E("x", errs.IO, long, nil).WithHint(long), errs.IO},
	} {
		got := FromStatus("call", "peer", ToStatus(tc.err))
		if errs.KindOf(got) != tc.want || len(got.Error()) > 3*maxText {
			t.Errorf("%s: kind %v, %d bytes", tc.name, errs.KindOf(got), len(got.Error()))
		}
	}
	if ToStatus(nil) != nil || FromStatus("call", "peer", nil) != nil {
		t.Error("nil does not stay nil")
	}
}

func TestTransport(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want errs.Kind
	}{
		{status.Error(codes.Unavailable, "connection refused"), errs.Unavailable},
		{status.Error(codes.Internal, "stream reset"), errs.Unavailable},
		{status.Error(codes.Unknown, "not ours"+mark+"!!"), errs.Unavailable},
		{status.Error(codes.Canceled, ""), errs.Canceled},
		{status.Error(codes.DeadlineExceeded, ""), errs.Timeout},
		{status.Error(codes.Unimplemented, ""), errs.Unsupported},
		{status.Error(codes.ResourceExhausted, "message too large"), errs.TooBig},
		{io.ErrClosedPipe, errs.Unavailable},
		{context.Canceled, errs.Canceled},
		{errs.E("x", errs.Stale, "", nil), errs.Stale},
	} {
		got := FromStatus("call", "peer:9", tc.err)
		if errs.KindOf(got) != tc.want {
			t.Errorf("%v: kind %v, want %v", tc.err, errs.KindOf(got), tc.want)
		}
		if tc.want == errs.Unavailable && !strings.Contains(got.Error(), "peer:9") {
			t.Errorf("%v does not name the peer", got)
		}
	}
}

func FuzzRecord(f *testing.F) {
	r := NewRecord(errs.E("op", errs.IO, "msg", nil).WithHint("hint"))
	f.Add(wire.Marshal(nil, version, &r))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if wire.Unmarshal(b, version, &r) != nil {
			return
		}
		if got := wire.Marshal(nil, version, &r); !bytes.Equal(got, b) {
			t.Fatalf("%x decodes and encodes to %x", b, got)
		}
		if err := r.Err(); (err != nil) != r.Failed {
			t.Fatalf("%+v gives %v", r, err)
		}
	})
}
