package rpc_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"agentdrive/internal/rpc/memnet"
)

// TestMuxHTTP fetches a page from the port that serves everything else.
func TestMuxHTTP(t *testing.T) {
	n := memnet.New()
	m := startMux(t, n, 1, nil)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "page ", r.URL.Path)
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(m.HTTP()) }()
	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	conn := dial(t, n.Host("c"), m.addr)
	if _, err := conn.Write([]byte("GET /metrics HTTP/1.0\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil || string(b[len(b)-len("page /metrics"):]) != "page /metrics" {
		t.Fatalf("%q %v", b, err)
	}
}
