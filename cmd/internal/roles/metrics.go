package roles

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"time"

	"agentdrive/chunkserver/chunk"
	"agentdrive/chunkserver/engine"
	"agentdrive/internal/disk"
	"agentdrive/internal/errs"
	"agentdrive/internal/obs"
)

// serveMetrics answers GET /metrics on ln until stop is called; stop waits.
func serveMetrics(reg *obs.Registry, ln net.Listener, log *slog.Logger) (stop func()) {
	srv := &http.Server{Handler: reg.Handler(), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			log.Error("metrics are not served any more", "err", err)
		}
	}()
	return func() {
		if err := srv.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			log.Warn("closing the metrics listener", "err", err)
		}
		<-done
	}
}

// listenMetrics opens a port of its own for metrics.
func listenMetrics(addr string) (net.Listener, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, errs.E("metrics.listen", errs.Unavailable, addr, err).
			WithHint("name a free address with --metrics HOST:PORT")
	}
	return ln, nil
}

// diskObserver makes histograms of disk calls.
func diskObserver(reg *obs.Registry) func(disk.Call, int, time.Duration) {
	type pair struct {
		seconds *obs.Histogram
		bytes   *obs.Counter
	}
	calls := map[disk.Call]pair{}
	for _, c := range []disk.Call{disk.CallRead, disk.CallWrite, disk.CallSync, disk.CallSyncDir} {
		l := obs.Label{Key: "call", Value: string(c)}
		calls[c] = pair{
			reg.Histogram("agentdrive_disk_seconds", "Time of a call to the disk", obs.LatencyBounds(), l),
			reg.Counter("agentdrive_disk_bytes_total", "Bytes read from and written to the disk", l),
		}
	}
	return func(c disk.Call, n int, took time.Duration) {
		calls[c].seconds.ObserveDuration(took)
		calls[c].bytes.Add(uint64(max(n, 0)))
	}
}

// registerStore shows what a chunk server holds.
func registerStore(reg *obs.Registry, store *engine.Store) {
	gauge := func(name, help string, read func(chunk.Status) float64) {
		reg.GaugeFunc(name, help, func() float64 {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			st, err := store.Status(ctx)
			if err != nil {
				return math.NaN() // not known
			}
			return read(st)
		})
	}
	gauge("agentdrive_store_blocks", "Blocks stored", func(s chunk.Status) float64 { return float64(s.Blocks) })
	gauge("agentdrive_store_live_bytes", "Bytes of the blocks stored", func(s chunk.Status) float64 { return float64(s.Live) })
	gauge("agentdrive_store_used_bytes", "Bytes of segments on disk", func(s chunk.Status) float64 { return float64(s.Used) })
	gauge("agentdrive_store_free_bytes", "Bytes that new blocks may take", func(s chunk.Status) float64 { return float64(s.Free) })
	gauge("agentdrive_store_full", "1 when no more blocks are taken", func(s chunk.Status) float64 {
		if s.ReadOnly {
			return 1
		}
		return 0
	})
}
