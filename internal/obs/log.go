// Package obs makes the state of a process visible: structured logs and
// metrics. It depends on nothing outside the standard library.
//
// Metrics live in a Registry that main makes and hands down; each package
// registers its instruments once, by constant names, when it is constructed.
// An instrument exists with value zero from then on, so that "never happened"
// and "not measured" differ. Names follow Prometheus: "agentdrive_" and the
// package, base units (seconds, bytes), "_total" for counters.
package obs

import (
	"fmt"
	"io"
	"log/slog"
	"strings"

	"agentdrive/internal/errs"
)

// Formats of NewLogger.
const (
	FormatText = "text"
	FormatJSON = "json"
)

// NewLogger writes records at level and above to w. level is debug, info,
// warn or error, in any case; format is FormatText or FormatJSON. An unknown
// one is errs.Usage. A logged error also shows its kind and hint, so that
// machines need not parse its text. Safe for concurrent use: a record is one
// Write.
func NewLogger(w io.Writer, format, level string) (*slog.Logger, error) {
	l, err := ParseLevel(level)
	if err != nil {
		return nil, err
	}
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: expandError}
	switch format {
	case FormatText:
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case FormatJSON:
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, errs.E("obs.log", errs.Usage, fmt.Sprintf("unknown log format %q", format), nil).
		WithHint("formats are text and json")
}

// ParseLevel reads the name of a level.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, errs.E("obs.log", errs.Usage, fmt.Sprintf("unknown log level %q", s), nil).
		WithHint("levels are debug, info, warn and error")
}

// expandError turns an error into a group of its text, kind and hint.
func expandError(_ []string, a slog.Attr) slog.Attr {
	err, ok := a.Value.Any().(error)
	if !ok {
		return a
	}
	attrs := []slog.Attr{slog.String("msg", err.Error()), slog.String("kind", errs.KindOf(err).String())}
	if hint := errs.HintOf(err); hint != "" {
		attrs = append(attrs, slog.String("hint", hint))
	}
	return slog.Attr{Key: a.Key, Value: slog.GroupValue(attrs...)}
}
