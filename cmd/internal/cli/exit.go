package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"agentdrive/internal/errs"
)

// Exit codes.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitInUse       = 4 // exists, or is in use
	ExitUnavailable = 5 // unavailable, or timed out
	ExitRefused     = 6
	ExitDegraded    = 7 // status only
)

// exitMeanings is the table of the documentation.
var exitMeanings = []string{
	"done", "failed", "wrong usage", "not found", "exists already, or is in use",
	"unavailable, or timed out", "refused", "degraded (`status` only)",
}

// exitCodes is the only place where a Kind becomes an exit code.
var exitCodes = map[errs.Kind]int{
	errs.Other: ExitFailed, errs.NotDir: ExitRefused, errs.IsDir: ExitRefused,
	errs.FileTooLarge: ExitFailed, errs.NoSpace: ExitFailed, errs.Quota: ExitFailed,
	errs.Stale: ExitFailed, errs.CrossDevice: ExitFailed, errs.TooManyLinks: ExitFailed,
	errs.Range: ExitFailed, errs.TooBig: ExitFailed, errs.Unsupported: ExitFailed,
	errs.Loop: ExitFailed, errs.Deadlock: ExitFailed, errs.Interrupted: ExitFailed, errs.WouldBlock: ExitFailed,
	errs.IO: ExitFailed, errs.Corrupt: ExitFailed, errs.Canceled: ExitFailed,

	errs.Usage: ExitUsage, errs.Invalid: ExitUsage,

	errs.NotExist: ExitNotFound, errs.NoAttr: ExitNotFound,

	errs.Exist: ExitInUse, errs.NotEmpty: ExitInUse, errs.Busy: ExitInUse, errs.Locked: ExitInUse,

	errs.Unavailable: ExitUnavailable, errs.NotLeader: ExitUnavailable, errs.Timeout: ExitUnavailable,
	errs.Again: ExitUnavailable, errs.Expired: ExitUnavailable,

	errs.Refused: ExitRefused, errs.Mismatch: ExitRefused, errs.Version: ExitRefused,
	errs.Permission: ExitRefused, errs.Access: ExitRefused, errs.ReadOnly: ExitRefused,
	errs.NameTooLong: ExitRefused,
}

// ExitCode is the exit code for err; nil is ExitDone.
func ExitCode(err error) int {
	if err == nil {
		return ExitDone
	}
	if code, ok := exitCodes[errs.KindOf(err)]; ok {
		return code
	}
	return ExitFailed
}

// hope tells whether a server that ended with code may do better when it is
// started again, and if not, what kind of refusal that was.
func hope(code int) (kind errs.Kind, ok bool) {
	switch code {
	case ExitUsage:
		return errs.Usage, false
	case ExitInUse:
		return errs.Locked, false
	case ExitRefused:
		return errs.Refused, false
	}
	return errs.Other, true
}

// degraded ends `status` with ExitDegraded; its report is printed already.
type degraded struct{}

func (degraded) Error() string { return "degraded" }

// errorJSON is the shape of errors under --json.
type errorJSON struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
	Hint  string `json:"hint"`
}

func printError(w io.Writer, err error, asJSON bool) {
	hint := errs.HintOf(err)
	if asJSON {
		b, jerr := json.Marshal(errorJSON{Error: err.Error(), Kind: errs.KindOf(err).String(), Hint: hint})
		if jerr == nil {
			fmt.Fprintln(w, string(b))
			return
		}
	}
	fmt.Fprintln(w, "agentdrive:", err)
	if hint != "" {
		fmt.Fprintln(w, "  hint:", hint)
	}
}
