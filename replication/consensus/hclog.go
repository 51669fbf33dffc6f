package consensus

import (
	"context"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// newHclog gives the libraries a logger that writes to log, one level lower:
// what is an error inside Raft (a peer is away) is a warning here.
func newHclog(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Output: io.Discard, Level: hclog.Error})
	l.RegisterSink(slogSink{log})
	return l
}

type slogSink struct{ log *slog.Logger }

var sinkLevels = map[hclog.Level]slog.Level{
	hclog.Error: slog.LevelWarn,
	hclog.Warn:  slog.LevelInfo,
	hclog.Info:  slog.LevelDebug,
}

// Accept implements hclog.SinkAdapter.
func (s slogSink) Accept(name string, level hclog.Level, msg string, args ...any) {
	lvl, ok := sinkLevels[level]
	ctx := context.Background()
	if !ok || !s.log.Enabled(ctx, lvl) {
		return
	}
	out := make([]any, len(args))
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			if format, ok := f[0].(string); ok {
				a = fmt.Sprintf(format, f[1:]...)
			}
		}
		out[i] = a
	}
	if name != "" {
		msg = name + ": " + msg
	}
	s.log.Log(ctx, lvl, msg, out...)
}
