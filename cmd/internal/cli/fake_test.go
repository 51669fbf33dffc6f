package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"agentdrive/cmd/internal/cluster"
	"agentdrive/cmd/internal/lockfile"
	"agentdrive/cmd/internal/mountd"
	"agentdrive/internal/errs"
)

// The test binary doubles as the program, with servers that only listen.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		app := App{Deps: fakeDeps(), Stdout: os.Stdout, Stderr: os.Stderr, Env: os.Environ()}
		os.Exit(app.Run(ctx, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func fakeDeps() Deps {
	return Deps{
		Version: "test",
		Connect: func(servers []string) (Cluster, error) { return listening(servers), nil },
		Run: func(ctx context.Context, c cluster.ServerConfig) error {
			if err := os.MkdirAll(c.Data, 0o700); err != nil {
				return err
			}
			lock, err := lockfile.Try(filepath.Join(c.Data, "LOCK"))
			if err != nil {
				return err
			}
			defer lock.Close()
			l, err := net.Listen("tcp", c.Listen)
			if err != nil {
				return err
			}
			fmt.Fprintf(c.Log, "%s %d of cluster %x listens, %d peers, %d copies\n", c.Role, c.ID, c.Cluster, len(c.Peers), c.Copies)
			<-ctx.Done()
			return l.Close()
		},
		Serve: func(_ context.Context, c mountd.Config) (mountd.Filesystem, error) {
			return nil, errs.E("mount", errs.NotExist, "no drive "+c.Drive, nil).WithHint("create it")
		},
	}
}

// listening is a Cluster that is healthy when all its metaservers accept
// connections.
type listening []string

func (l listening) Status(context.Context) (Status, error) {
	st := Status{Version: "test", Healthy: true, Serving: true}
	for i, addr := range l {
		s := Server{Role: cluster.Metaserver, ID: uint32(i + 1), Address: addr, State: StateUp}
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			st.Servers = append(st.Servers, s)
			continue
		}
		st.Healthy = false
		st.Degraded = append(st.Degraded, fmt.Sprintf("metaserver %d is down", s.ID))
	}
	if len(st.Servers) == 0 {
		return st, errs.E("status", errs.Unavailable, "no metaserver answers", nil)
	}
	st.Serving = len(st.Servers) > len(l)/2
	return st, nil
}

func (l listening) CreateDrive(context.Context, string) (Drive, error) { return Drive{}, nil }
func (l listening) Drives(context.Context) ([]Drive, error)            { return nil, nil }
func (l listening) Drive(context.Context, string) (Drive, error)       { return Drive{}, nil }
func (l listening) DeleteDrive(context.Context, string, bool) error    { return nil }
func (l listening) SetQuota(context.Context, string, Quota) (Drive, error) {
	return Drive{}, nil
}
func (l listening) Close() error { return nil }

// memory is a Cluster of drives in memory.
type memory struct {
	listening
	status Status
	drives map[string]Drive
	busy   string // drive that is mounted
	looks  int    // so many looks at the status are answered, later ones hang; 0: all
	looked int
}

func (m *memory) Status(ctx context.Context) (Status, error) {
	if m.looked++; m.looks > 0 && m.looked > m.looks {
		<-ctx.Done()
		return Status{}, errs.E("status", errs.Timeout, "", ctx.Err())
	}
	return m.status, nil
}

func (m *memory) CreateDrive(_ context.Context, name string) (Drive, error) {
	if _, ok := m.drives[name]; ok {
		return Drive{}, errs.E("drive.create", errs.Exist, "drive "+name, nil)
	}
	d := Drive{Name: name, ID: uint64(len(m.drives) + 1), Group: 1}
	m.drives[name] = d
	return d, nil
}

func (m *memory) Drives(context.Context) ([]Drive, error) {
	var out []Drive
	for _, d := range m.drives {
		out = append(out, d)
	}
	return out, nil
}

func (m *memory) Drive(_ context.Context, name string) (Drive, error) {
	d, ok := m.drives[name]
	if !ok {
		return d, errs.E("drive.get", errs.NotExist, "no drive "+name, nil).WithHint("`agentdrive drive list` shows them")
	}
	return d, nil
}

func (m *memory) SetQuota(ctx context.Context, name string, q Quota) (Drive, error) {
	d, err := m.Drive(ctx, name)
	if err != nil {
		return d, err
	}
	if q.MaxBytes != nil {
		d.MaxBytes = *q.MaxBytes
	}
	if q.MaxFiles != nil {
		d.MaxFiles = *q.MaxFiles
	}
	m.drives[name] = d
	return d, nil
}

func (m *memory) DeleteDrive(ctx context.Context, name string, force bool) error {
	if _, err := m.Drive(ctx, name); err != nil {
		return err
	}
	if name == m.busy && !force {
		return errs.E("drive.delete", errs.Busy, "drive "+name+" is mounted", nil)
	}
	delete(m.drives, name)
	return nil
}

// result of one run of the program.
type result struct {
	code     int
	out, err string
}

func (r result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.code, r.out, r.err)
}

// decode reads the output as one JSON value.
func (r result) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.out), v); err != nil {
		t.Fatalf("%v\n%v", err, r)
	}
}

// runApp runs args in this process.
func runApp(deps Deps, env []string, args ...string) result {
	var out, err bytes.Buffer
	app := App{Deps: deps, Stdout: &out, Stderr: &err, Env: env}
	code := app.Run(context.Background(), args)
	return result{code, out.String(), err.String()}
}

// lockOf takes the lock that a fake server on dir would want.
func lockOf(dir string) (*lockfile.Lock, error) { return lockfile.Try(filepath.Join(dir, "LOCK")) }
