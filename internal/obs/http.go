package obs

import (
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Handler serves the registry at /metrics in Prometheus' text format. Anything
// else is a 404 that names the path.
func (r *Registry) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ContentType)
		// An error is the client's connection: there is nobody to tell.
		_ = r.WritePrometheus(w)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "metrics are at /metrics", http.StatusNotFound)
	})
	return mux
}

// RegisterProcess registers what every process has: version, memory, goroutines,
// open files, age.
func (r *Registry) RegisterProcess(role, version string) {
	r.Gauge("agentdrive_build_info", "1, labelled with role and version", Label{"role", role}, Label{"version", version}).Set(1)
	start := time.Now()
	r.GaugeFunc("agentdrive_process_uptime_seconds", "Age of the process", func() float64 { return time.Since(start).Seconds() })
	r.GaugeFunc("agentdrive_process_goroutines", "Goroutines", func() float64 { return float64(runtime.NumGoroutine()) })
	r.GaugeFunc("agentdrive_process_resident_bytes", "Resident memory", residentBytes)
	r.GaugeFunc("agentdrive_process_open_files", "Open file descriptors", openFiles)
	r.GaugeFunc("agentdrive_process_heap_bytes", "Bytes of live and dead heap objects", func() float64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	})
}

// residentBytes reads the second field of statm, in pages; 0 when the system
// does not tell.
func residentBytes() float64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseFloat(f[1], 64)
	if err != nil {
		return 0
	}
	return pages * float64(os.Getpagesize())
}

func openFiles() float64 {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return float64(len(list))
}
