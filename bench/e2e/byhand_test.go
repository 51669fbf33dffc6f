package e2e

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

// byHand is a cluster formed with `metaserver` and `chunkserver`, as on three
// hosts.
type byHand struct {
	c     *cluster.Cluster
	peers string // of metadata servers: 1=HOST:PORT,...
	addrs string // of metadata servers: HOST:PORT,...
}

// metaserver returns the command line of metadata server id on directory dir.
func (h byHand) metaserver(id int, dir string) []string {
	addr := strings.Split(h.addrs, ",")[id-1]
	return []string{"metaserver", "--data", filepath.Join(h.c.Root, dir), "--listen", addr, "--id", fmt.Sprint(id), "--peers", h.peers}
}

func (h byHand) chunkserver(id int, dir, addr string) []string {
	return []string{"chunkserver", "--data", filepath.Join(h.c.Root, dir), "--listen", addr, "--id", fmt.Sprint(id), "--peers", h.addrs}
}

// freePorts returns addresses of ports that were free just now, below those
// that the kernel gives to outgoing connections.
func freePorts(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for port := 17001; len(out) < n; port++ {
		if port == 30000 {
			t.Fatal("no free ports")
		}
		addr := fmt.Sprintf("127.0.0.1:%d", port)
		l, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		l.Close()
		out = append(out, addr)
	}
	return out
}

// Three metadata servers and three chunk servers started by hand form a
// cluster; a drive of it is created and mounted with --servers.
func TestFormedByHand(t *testing.T) {
	fit(t)
	c := cluster.New(t, cluster.Options{Bin: binary})
	ports := freePorts(t, 9)
	h := byHand{c: c, addrs: strings.Join(ports[:3], ",")}
	for i, addr := range ports[:3] {
		h.peers += fmt.Sprintf(",%d=%s", i+1, addr)
	}
	h.peers = h.peers[1:]
	var pids []int
	for id := 1; id <= 3; id++ {
		pids = append(pids, c.Spawn(fmt.Sprint("metaserver-", id), h.metaserver(id, fmt.Sprint("m", id))...))
		pids = append(pids, c.Spawn(fmt.Sprint("chunkserver-", id), h.chunkserver(id, fmt.Sprint("c", id), ports[2+id])...))
	}
	servers := []string{"--servers", h.addrs}
	do := func(args ...string) string { t.Helper(); return c.Do(append(args, servers...)...) }
	do("status", "--wait", "--for", "healthy", "--timeout", "60s")
	do("drive", "create", "demo")
	a, b := c.Mount("demo", "a", servers...), c.Mount("demo", "b", servers...)
	write(t, a+"/file", "by hand")
	if got := read(t, b+"/file"); got != "by hand" {
		t.Errorf("read %q", got)
	}
	t.Run("refusals", func(t *testing.T) { refusals(t, h, ports) })
	c.Do("umount", a)
	c.Do("umount", b)
	for _, pid := range pids {
		stop(t, c, pid)
	}
	t.Run("another cluster", func(t *testing.T) { anotherCluster(t, h, ports[6:]) })
	// and again on the same directories
	for id := 1; id <= 3; id++ {
		c.Spawn(fmt.Sprint("metaserver-", id), h.metaserver(id, fmt.Sprint("m", id))...)
		c.Spawn(fmt.Sprint("chunkserver-", id), h.chunkserver(id, fmt.Sprint("c", id), ports[2+id])...)
	}
	do("status", "--wait", "--for", "healthy", "--timeout", "60s")
	if got := read(t, c.Mount("demo", "a", servers...)+"/file"); got != "by hand" {
		t.Errorf("after a restart: %q", got)
	}
}

// stop ends a server with SIGTERM.
func stop(t *testing.T, c *cluster.Cluster, pid int) {
	t.Helper()
	must(t, c.Root, "kill", "-TERM", fmt.Sprint(pid))
	c.Gone(pid)
}

// A server is refused on a directory that is not its own, and told the way
// out; the directory's owner serves on.
func refusals(t *testing.T, h byHand, ports []string) {
	for _, tt := range []struct {
		name string
		code int
		kind string
		args []string
	}{
		{"second process, metaserver", 4, "locked", h.with(h.metaserver(1, "m1"), "--listen", ports[6])},
		{"second process, chunkserver", 4, "locked", h.chunkserver(1, "c1", ports[6])},
		{"another id, metaserver", 6, "mismatch", h.with(h.metaserver(2, "m1"), "--listen", ports[6])},
		{"another id, chunkserver", 6, "mismatch", h.chunkserver(2, "c1", ports[6])},
		{"another role", 6, "mismatch", h.chunkserver(1, "m1", ports[6])},
		{"another cluster", 6, "mismatch", h.with(h.metaserver(1, "m1"), "--listen", ports[6], "--cluster", strings.Repeat("ab", 16))},
		{"another cluster, chunkserver", 6, "mismatch", append(h.chunkserver(1, "c1", ports[6]), "--cluster", strings.Repeat("ab", 16))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := cluster.Exec(context.Background(), "/", 30*time.Second, nil, append(append([]string{binary}, tt.args...), "--json")...)
			r.Stderr = lastLine(r.Stderr) // log lines stand above
			if f := fault(t, r, tt.code, tt.kind); f.Hint == "" {
				t.Errorf("no hint: %v", r)
			}
		})
	}
	if got := h.c.Run("status", "--servers", h.addrs, "--json"); got.Code != 0 {
		t.Errorf("after the refusals: %v", got)
	}
}

// anotherCluster forms a second cluster and starts servers of it on the
// directories of the first, which does not run.
func anotherCluster(t *testing.T, h byHand, ports []string) {
	o := byHand{c: h.c, addrs: ports[0], peers: "1=" + ports[0]}
	for _, pid := range []int{
		h.c.Spawn("other-meta", append(o.metaserver(1, "m9"), "--copies", "1")...),
		h.c.Spawn("other-chunk", o.chunkserver(9, "c9", ports[2])...),
	} {
		defer stop(t, h.c, pid)
	}
	h.c.Do("status", "--wait", "--timeout", "20s", "--servers", o.addrs)
	for name, args := range map[string][]string{
		"chunkserver": o.chunkserver(1, "c1", ports[1]),
		"metaserver":  h.with(o.metaserver(1, "m1"), "--listen", ports[1]),
	} {
		t.Run(name, func(t *testing.T) {
			r := cluster.Exec(context.Background(), "/", 10*time.Second, nil, append(append([]string{binary}, args...), "--json")...)
			r.Stderr = lastLine(r.Stderr)
			if f := fault(t, r, 6, "mismatch"); f.Hint == "" {
				t.Errorf("no hint: %v", r)
			}
		})
	}
}

// with replaces the values of flags.
func (h byHand) with(args []string, flags ...string) []string {
	for i := 0; i < len(flags); i += 2 {
		replaced := false
		for j := range args {
			if args[j] == flags[i] {
				args[j+1], replaced = flags[i+1], true
			}
		}
		if !replaced {
			args = append(args, flags[i:i+2]...)
		}
	}
	return args
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
