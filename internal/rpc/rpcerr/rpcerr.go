// Package rpcerr carries an errs.Error across gRPC: Kind, Op, Msg and Hint
// arrive as they left.
//
// A gRPC status is a code and a text. The code is the nearest standard one,
// for tools that know nothing of us; nobody here decides by it except for
// failures that gRPC itself reports. The text is what a person would read,
// then a newline and the mark and base64 form of the error as a versioned wire
// record. (Status details would need the protobuf runtime and its registry for
// the same bytes.)
//
// What gRPC reports by itself becomes errs.Unavailable naming the peer,
// errs.Canceled for a canceled context, errs.Timeout for a passed deadline.
package rpcerr

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
)

const (
	version = 1
	mark    = "\nadrive-error:"
	// gRPC refuses trailers over some 16 KiB.
	maxText = 2048
)

// Record is an error on its way. The zero Record is no error.
type Record struct {
	Failed bool
	Kind   errs.Kind
	Op     string
	Msg    string
	Hint   string
}

// Wire codes the fields in order. A kind that this version does not know
// stays as it is; Err turns it into errs.Other.
func (r *Record) Wire(c *wire.Coder) {
	c.Bool(&r.Failed)
	wire.Uint(c, &r.Kind)
	c.String(&r.Op)
	c.String(&r.Msg)
	c.String(&r.Hint)
}

// NewRecord describes err; nil gives the zero Record.
func NewRecord(err error) Record {
	if err == nil {
		return Record{}
	}
	r := Record{Failed: true, Kind: errs.KindOf(err), Hint: cut(errs.HintOf(err))}
	var e *errs.Error
	if errors.As(err, &e) && e == err {
		r.Op = cut(e.Op)
		inner := *e
		inner.Op = ""
		r.Msg = cut(inner.Error())
	} else {
		r.Msg = cut(err.Error())
	}
	if r.Kind == errs.Other {
		switch {
		case errors.Is(err, context.Canceled):
			r.Kind = errs.Canceled
		case errors.Is(err, context.DeadlineExceeded):
			r.Kind = errs.Timeout
		}
	}
	return r
}

// cut bounds a text and makes it valid UTF-8.
func cut(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return s
}

// Err is the error that the record describes, or nil.
func (r *Record) Err() error {
	if !r.Failed {
		return nil
	}
	kind := r.Kind
	if !kind.Known() {
		kind = errs.Other
	}
	return &errs.Error{Op: r.Op, Kind: kind, Msg: r.Msg, Hint: r.Hint}
}

// grpcCodes maps kinds for the eyes of foreign tools; others are Unknown.
var grpcCodes = map[errs.Kind]codes.Code{
	errs.NotExist: codes.NotFound, errs.Exist: codes.AlreadyExists,
	errs.Invalid: codes.InvalidArgument, errs.Usage: codes.InvalidArgument,
	errs.Permission: codes.PermissionDenied, errs.Access: codes.PermissionDenied,
	errs.Refused: codes.PermissionDenied, errs.NoSpace: codes.ResourceExhausted,
	errs.Quota: codes.ResourceExhausted, errs.Corrupt: codes.DataLoss,
	errs.Unavailable: codes.Unavailable, errs.NotLeader: codes.Unavailable,
	errs.Timeout: codes.DeadlineExceeded, errs.Canceled: codes.Canceled,
	errs.Unsupported: codes.Unimplemented, errs.IO: codes.Internal,
	errs.Expired: codes.FailedPrecondition, errs.Mismatch: codes.FailedPrecondition,
}

// ToStatus turns what a handler returns into what gRPC sends; nil stays nil.
func ToStatus(err error) error {
	if err == nil {
		return nil
	}
	r := NewRecord(err)
	code, ok := grpcCodes[r.Kind]
	if !ok {
		code = codes.Unknown
	}
	text := r.Err().Error() + mark + base64.RawStdEncoding.EncodeToString(wire.Marshal(nil, version, &r))
	return status.Error(code, text)
}

// FromStatus turns what a gRPC call returned into an errs.Error that names the
// peer; op is the attempted operation. nil stays nil, an errs.Error stays what
// it is.
func FromStatus(op, peer string, err error) error {
	if err == nil {
		return nil
	}
	var known *errs.Error
	if errors.As(err, &known) {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return errs.E(op, errs.Canceled, peer, err)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errs.E(op, errs.Timeout, peer, err)
	}
	st, ok := status.FromError(err)
	if !ok {
		return errs.E(op, errs.Unavailable, peer, err)
	}
	if r, ok := decode(st.Message()); ok {
		remote := r.Err()
		return errs.E(op, errs.KindOf(remote), peer, remote)
	}
	return fromTransport(op, peer, st)
}

// decode finds the record in a status text.
func decode(text string) (r Record, ok bool) {
	i := strings.LastIndex(text, mark)
	if i < 0 {
		return r, false
	}
	b, err := base64.RawStdEncoding.DecodeString(text[i+len(mark):])
	if err != nil || wire.Unmarshal(b, version, &r) != nil || !r.Failed {
		return r, false
	}
	return r, true
}

// fromTransport classifies what gRPC said by itself.
func fromTransport(op, peer string, st *status.Status) error {
	cause := errors.New(st.Message())
	switch st.Code() {
	case codes.Canceled:
		return errs.E(op, errs.Canceled, peer, cause)
	case codes.DeadlineExceeded:
		return errs.E(op, errs.Timeout, peer, cause)
	case codes.Unimplemented:
		return errs.E(op, errs.Unsupported, peer+" does not know the call", cause).
			WithHint("upgrade the server at " + peer)
	case codes.ResourceExhausted:
		return errs.E(op, errs.TooBig, peer, cause)
	}
	return errs.E(op, errs.Unavailable, peer, cause).
		WithHint("check that the server at " + peer + " runs and can be reached")
}
