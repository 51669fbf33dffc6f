package posix

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"agentdrive/fuseclient"
	"agentdrive/internal/rpc"
)

// program is the real program with a running cluster; one for all tests.
type program struct {
	once    sync.Once
	err     error
	dir     string // holds the binary, the data, mounts and local directories
	cleaner io.Closer
	wait    func() error

	mu     sync.Mutex // guards the field below; leaf
	drives int
}

var real program

// status is what the tests read of `status --json`.
type status struct {
	Servers []struct {
		Role    string `json:"role"`
		PID     int    `json:"pid"`
		Address string `json:"address"`
	} `json:"servers"`
	Mounts []struct {
		Dir   string `json:"dir"`
		PID   int    `json:"pid"`
		State string `json:"state"`
	} `json:"mounts"`
}

// needMount skips a test where the program cannot mount, and starts the
// cluster otherwise.
func needMount(t testing.TB) *program {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and mounts the real program: not in short mode")
	}
	if os.Geteuid() != 0 {
		t.Skip("mounts need root")
	}
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("mounts need /dev/fuse: %v", err)
	}
	f.Close()
	real.once.Do(func() { real.err = real.start() })
	if real.err != nil {
		t.Fatal(real.err)
	}
	return &real
}

func (p *program) start() error {
	var err error
	if p.dir, err = os.MkdirTemp("", "agentdrive-posix"); err != nil {
		return err
	}
	if err := os.Chmod(p.dir, 0o755); err != nil { // other users walk through it
		return err
	}
	cmd, in, err := startJanitor(p.dir)
	if err != nil {
		return err
	}
	p.cleaner, p.wait = in, cmd.Wait
	if os.Getenv("POSIX_KEEP") != "" {
		fmt.Fprintln(os.Stderr, "data and logs are kept in", p.dir)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	build := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(p.dir, "agentdrive"), "agentdrive/cmd/agentdrive")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	_, err = p.run("up", "--detach")
	return err
}

// finish lets the janitor work and waits for it.
func (p *program) finish() error {
	p.cleaner.Close()
	return p.wait()
}

// run runs the program, and gives what it printed.
func (p *program) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.dir, "agentdrive"), args...)
	cmd.Env = append(os.Environ(), "AGENTDRIVE_DATA="+filepath.Join(p.dir, "data"))
	var out, errText bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errText
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("agentdrive %q: %w\n%s", args, err, errText.Bytes())
	}
	return out.String(), nil
}

func (p *program) must(t testing.TB, args ...string) string {
	t.Helper()
	out, err := p.run(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (p *program) status(t testing.TB) (s status) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.must(t, "status", "--json")), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// drive creates a drive for one test.
func (p *program) drive(t testing.TB) string {
	t.Helper()
	p.mu.Lock()
	p.drives++
	name := fmt.Sprintf("test-%d", p.drives)
	p.mu.Unlock()
	p.must(t, "drive", "create", name)
	t.Cleanup(func() { p.must(t, "drive", "delete", name) })
	return name
}

// mount mounts a drive for everyone, until the test ends.
func (p *program) mount(t testing.TB, drive string) string {
	t.Helper()
	dir, err := os.MkdirTemp(p.dir, "mnt")
	if err != nil {
		t.Fatal(err)
	}
	p.must(t, "mount", "--allow-other", drive, dir)
	t.Cleanup(func() {
		if _, err := p.run("umount", dir); err != nil {
			t.Error(err)
			if _, err := p.run("umount", "--force", dir); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

// local makes a directory on the local disk that others can reach.
func (p *program) local(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(p.dir, "local")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// newMount is a mount of a new drive.
func newMount(t testing.TB) string {
	t.Helper()
	p := needMount(t)
	return p.mount(t, p.drive(t))
}

// session opens a session with a drive of the real cluster in this process.
func (p *program) session(t testing.TB, drive string) *fuseclient.Client {
	t.Helper()
	var servers []string
	for _, s := range p.status(t).Servers {
		if s.Role == "metaserver" {
			servers = append(servers, s.Address)
		}
	}
	return openSession(t, fuseclient.Config{Servers: servers, Network: rpc.TCP{}, Drive: drive})
}

// subdir makes a directory of mode 0755.
func subdir(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
