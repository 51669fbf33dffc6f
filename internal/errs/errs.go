// Package errs is the one error type of Agent Drive.
//
// An Error carries the operation that failed, its Kind and, where one exists,
// a hint that names the way out. Kinds cross the network unchanged and are
// turned into an errno in exactly one table (errno.go). Code decides by Kind,
// never by text. The shape follows Rob Pike's account of error handling in
// Upspin: errors are values built from typed parts.
package errs

import (
	"errors"
	"strings"
)

// Kind classifies an error. The numbers are part of the wire protocol and of
// recorded replies: append only, never renumber.
type Kind uint8

// The kinds. Those in the first block are answers of a filesystem; those in
// the second are states of the service.
const (
	Other        Kind = 0 // unclassified
	NotExist     Kind = 1
	Exist        Kind = 2
	NotDir       Kind = 3
	IsDir        Kind = 4
	NotEmpty     Kind = 5
	Invalid      Kind = 6
	Permission   Kind = 7 // EPERM: ownership, sticky bit
	Access       Kind = 8 // EACCES: mode bits, capability
	NameTooLong  Kind = 9
	FileTooLarge Kind = 10
	NoSpace      Kind = 11
	Quota        Kind = 12
	ReadOnly     Kind = 13
	Stale        Kind = 14
	Busy         Kind = 15
	CrossDevice  Kind = 16
	TooManyLinks Kind = 17
	NoAttr       Kind = 18 // extended attribute absent
	Range        Kind = 19
	TooBig       Kind = 20 // E2BIG: extended attribute too large
	Unsupported  Kind = 21
	Loop         Kind = 22
	Deadlock     Kind = 23
	Again        Kind = 24
	Interrupted  Kind = 25
	IO           Kind = 26
	WouldBlock   Kind = 27 // a lock of somebody else is in the way

	Corrupt     Kind = 64 // bytes that fail their check; names file and offset, or peer
	Unavailable Kind = 65 // no majority, no quorum, nobody listens
	NotLeader   Kind = 66 // ask another server; Hint may carry its address
	Timeout     Kind = 67
	Expired     Kind = 68 // session ended; late work is refused
	Refused     Kind = 69 // capability or grant does not allow it
	Mismatch    Kind = 70 // another cluster's data, another server's identity
	Locked      Kind = 71 // directory in use by another process
	Version     Kind = 72 // written by a newer version than this program knows
	Canceled    Kind = 73
	Usage       Kind = 74 // wrong command line
)

var kindNames = map[Kind]string{
	Other: "other", NotExist: "not_exist", Exist: "exist", NotDir: "not_dir",
	IsDir: "is_dir", NotEmpty: "not_empty", Invalid: "invalid",
	Permission: "permission", Access: "access", NameTooLong: "name_too_long",
	FileTooLarge: "file_too_large", NoSpace: "no_space", Quota: "quota",
	ReadOnly: "read_only", Stale: "stale", Busy: "busy",
	CrossDevice: "cross_device", TooManyLinks: "too_many_links",
	NoAttr: "no_attr", Range: "range", TooBig: "too_big",
	Unsupported: "unsupported", Loop: "loop", Deadlock: "deadlock",
	Again: "again", Interrupted: "interrupted", IO: "io", WouldBlock: "would_block",
	Corrupt: "corrupt", Unavailable: "unavailable", NotLeader: "not_leader",
	Timeout: "timeout", Expired: "expired", Refused: "refused",
	Mismatch: "mismatch", Locked: "locked", Version: "version",
	Canceled: "canceled", Usage: "usage",
}

// String gives the stable, lower-case name used in JSON output and logs.
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return "unknown"
}

// Known reports whether k is a kind this version defines. Decoders turn
// unknown kinds into Other.
func (k Kind) Known() bool { _, ok := kindNames[k]; return ok }

// Error is the concrete error. The zero value of each field means "not
// given". Errors are immutable once returned.
type Error struct {
	Op   string // what was attempted: "segment.open", "rename"
	Kind Kind
	Msg  string // detail for people, without the cause
	Hint string // what to do about it
	Err  error  // cause, may be nil
}

// E builds an Error for op. If kind is Other and err carries a kind, that
// kind is taken over.
func E(op string, kind Kind, msg string, err error) *Error {
	if kind == Other && err != nil {
		kind = KindOf(err)
	}
	return &Error{Op: op, Kind: kind, Msg: msg, Err: err}
}

// WithHint returns a copy of e that names the way out.
func (e *Error) WithHint(hint string) *Error {
	c := *e
	c.Hint = hint
	return &c
}

// Error renders "op: message: cause"; the kind's name stands in for a missing
// message.
func (e *Error) Error() string {
	var parts []string
	if e.Op != "" {
		parts = append(parts, e.Op)
	}
	if e.Msg != "" {
		parts = append(parts, e.Msg)
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	} else if e.Msg == "" {
		parts = append(parts, strings.ReplaceAll(e.Kind.String(), "_", " "))
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of the outermost Error in err's chain that has one,
// or Other.
func KindOf(err error) Kind {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return Other
		}
		if e.Kind != Other {
			return e.Kind
		}
		err = e.Err
	}
	return Other
}

// Is reports whether err's kind is kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// HintOf returns the outermost hint in err's chain, or "".
func HintOf(err error) string {
	for err != nil {
		var e *Error
		if !errors.As(err, &e) {
			return ""
		}
		if e.Hint != "" {
			return e.Hint
		}
		err = e.Err
	}
	return ""
}
