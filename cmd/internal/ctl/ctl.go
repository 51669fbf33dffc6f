// Package ctl is the control channel between processes of one data directory:
// JSON lines over a unix socket.
//
// A client connects, writes one request line {"op": ..., "args": ...} and
// reads one reply line, {"result": ...} or {"failure": {"error", "kind",
// "hint"}}; kind is the number of an errs.Kind. Either side refuses lines over
// 1 MiB. When the client goes away, the context of its request ends.
//
// Sockets live in directories of mode 0700: whoever can open the directory
// may do everything. Paths longer than sun_path's 108 bytes work; they are
// reached through a descriptor of their directory.
package ctl

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

const (
	maxLine     = 1 << 20
	maxSunPath  = 100 // of 108, with room for the terminating zero
	socketPerms = 0o600

	writeTimeout = 5 * time.Second // for a client to take its reply
)

// Handler answers one request. The result is encoded as JSON; nil is fine.
type Handler func(ctx context.Context, op string, args json.RawMessage) (any, error)

// Failure is an error in transit.
type Failure struct {
	Error string    `json:"error"`
	Kind  errs.Kind `json:"kind"`
	Hint  string    `json:"hint,omitempty"`
}

// Fail turns an error into a Failure.
func Fail(err error) *Failure {
	return &Failure{Error: err.Error(), Kind: errs.KindOf(err), Hint: errs.HintOf(err)}
}

// Err turns a Failure back into an error of the same kind and hint.
func (f *Failure) Err() error {
	kind := f.Kind
	if !kind.Known() {
		kind = errs.Other
	}
	return errs.E("", kind, f.Error, nil).WithHint(f.Hint)
}

type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

type reply struct {
	Result  json.RawMessage `json:"result,omitempty"`
	Failure *Failure        `json:"failure,omitempty"`
}

// Server answers requests until Close.
type Server struct {
	l      net.Listener
	handle Handler
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// Listen replaces the socket at path and serves h on it. The caller holds the
// lock that makes it the only listener there.
func Listen(path string, h Handler) (*Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errs.E("ctl.listen", errs.IO, "", err)
	}
	short, done, err := shorten(path)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
	if err != nil {
		return nil, errs.E("ctl.listen", errs.IO, "", err)
	}
	l.SetUnlinkOnClose(false) // the short name is void by then
	if err := os.Chmod(path, socketPerms); err != nil {
		l.Close()
		return nil, errs.E("ctl.listen", errs.IO, "", err)
	}
	s := &Server{l: l, handle: h}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Add(1)
	go s.accept()
	return s, nil
}

// Close stops listening, ends the contexts of open requests, and waits until
// their handlers have returned and their replies are sent. It leaves the socket file: its directory's owner removes it.
// Not to be called from a handler.
func (s *Server) Close() error {
	err := s.l.Close()
	s.cancel()
	s.wg.Wait()
	return err
}

func (s *Server) accept() {
	defer s.wg.Done()
	for {
		conn, err := s.l.Accept()
		if err != nil {
			return // closed
		}
		s.wg.Add(1)
		go func() {
			defer s.wg.Done()
			defer conn.Close()
			s.serve(conn)
		}()
	}
}

func (s *Server) serve(conn net.Conn) {
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	// Close does not wait for clients that have not asked yet.
	stop := context.AfterFunc(s.ctx, func() { conn.Close() })

	in := bufio.NewReader(io.LimitReader(conn, maxLine))
	var req request
	rep := reply{}
	line, err := in.ReadBytes('\n')
	if !stop() || err != nil {
		return // nobody asked anything
	}
	if err := json.Unmarshal(line, &req); err != nil {
		rep.Failure = Fail(errs.E("ctl", errs.Invalid, "request is not JSON", err))
	} else {
		gone := make(chan struct{})
		go func() { // a client that hangs up cancels its request
			defer close(gone)
			_, _ = in.ReadByte()
			cancel()
		}()
		rep = s.answer(ctx, req)
		defer func() { conn.Close(); <-gone }()
	}
	out, err := json.Marshal(rep)
	if err != nil {
		out, _ = json.Marshal(reply{Failure: Fail(errs.E("ctl", errs.Other, "reply", err))})
	}
	_ = conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	// A client that does not read its reply has gone; there is nobody to tell.
	_, _ = conn.Write(append(out, '\n'))
}

func (s *Server) answer(ctx context.Context, req request) reply {
	result, err := s.handle(ctx, req.Op, req.Args)
	if err != nil {
		return reply{Failure: Fail(err)}
	}
	b, err := json.Marshal(result)
	if err != nil {
		return reply{Failure: Fail(errs.E("ctl", errs.Other, "result", err))}
	}
	return reply{Result: b}
}

// Call sends one request to the socket at path and decodes the reply's result
// into result (nil: discarded). errs.Unavailable: nobody listens. Errors of
// the handler come back with their kind and hint.
func Call(ctx context.Context, path, op string, args, result any) error {
	short, done, err := shorten(path)
	if err != nil {
		return err
	}
	defer done()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", short)
	if err != nil {
		return errs.E("ctl.call", errs.Unavailable, "nobody listens on "+path, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	req := request{Op: op}
	if args != nil {
		if req.Args, err = json.Marshal(args); err != nil {
			return errs.E("ctl.call", errs.Other, op, err)
		}
	}
	b, err := json.Marshal(req)
	if err != nil {
		return errs.E("ctl.call", errs.Other, op, err)
	}
	if _, err = conn.Write(append(b, '\n')); err == nil {
		b, err = bufio.NewReader(io.LimitReader(conn, maxLine)).ReadBytes('\n')
	}
	if err != nil {
		if ctx.Err() != nil {
			return errs.E("ctl.call", errs.Timeout, fmt.Sprintf("no reply to %q from %s", op, path), ctx.Err())
		}
		return errs.E("ctl.call", errs.Unavailable, fmt.Sprintf("%s went away during %q", path, op), err)
	}
	var rep reply
	if err := json.Unmarshal(b, &rep); err != nil {
		return errs.E("ctl.call", errs.Corrupt, "reply from "+path+" is not JSON", err)
	}
	if rep.Failure != nil {
		return rep.Failure.Err()
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(rep.Result, result); err != nil {
		return errs.E("ctl.call", errs.Corrupt, "result from "+path, err)
	}
	return nil
}

// shorten gives a name for path that fits sun_path. done ends its validity.
func shorten(path string) (short string, done func(), err error) {
	if len(path) <= maxSunPath {
		return path, func() {}, nil
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", nil, errs.E("ctl", errs.Unavailable, filepath.Dir(path), err)
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { _ = unix.Close(fd) }, nil
}
