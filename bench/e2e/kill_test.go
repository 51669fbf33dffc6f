package e2e

import (
	"syscall"
	"testing"
	"time"

	"agentdrive/bench/cluster"
)

// Servers die in the middle of a git clone, a SQLite run and fio with
// verification. Where a majority lives no program sees an error; where none
// lives they wait and go on, on the same mount. So they do when all servers stand
// still for longer than a session lives without them.
func TestKill(t *testing.T) {
	fit(t, "git", "sqlite3")
	repo := repository(t, 200)
	kill := func(pick func(*cluster.Cluster) cluster.Server) func(*cluster.Cluster) {
		return func(c *cluster.Cluster) { c.Kill(pick(c)) }
	}
	chunkserver := func(c *cluster.Cluster) cluster.Server { return c.Server(cluster.Chunk, 2) }
	for _, tt := range []struct {
		name      string
		short     bool
		noRespawn bool
		serves    bool // again, when kill returns
		kill      func(*cluster.Cluster)
	}{
		{name: "leader", short: true, noRespawn: true, kill: kill((*cluster.Cluster).Leader)},
		{name: "follower", kill: kill((*cluster.Cluster).Follower)},
		{name: "chunkserver", noRespawn: true, kill: kill(chunkserver)},
		{name: "all", serves: true, kill: func(c *cluster.Cluster) { c.KillAll(); c.Up() }},
		{name: "standstill", serves: true, kill: standstill},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if testing.Short() && !tt.short {
				t.Skip("long")
			}
			c := cluster.Start(t, cluster.Options{Bin: binary, Nodes: 3, NoRespawn: tt.noRespawn})
			c.Do("drive", "create", "demo")
			dir := c.Mount("demo", "a")
			all, enough := works(t, dir, repo)
			for _, w := range all {
				c.Eventually(w.name+" at work", func() bool { return w.begun() || len(w.err) > 0 })
			}
			tt.kill(c)
			if !tt.serves {
				c.Eventually("degraded state", func() bool { st := c.Status(); return !st.Healthy && st.Serving && len(st.Degraded) > 0 })
			}
			close(enough)
			end(t, all)
			if tt.noRespawn {
				if st := c.Status(); st.Healthy {
					t.Error("healthy without a server")
				}
				c.KillAll() // the mount stays, and the whole cluster returns
				c.Up()
			}
			st := c.WaitFor("healthy")
			if st.Repair.Blocks != 0 || len(st.Degraded) != 0 {
				t.Errorf("healthy with %+v, degraded %v", st.Repair, st.Degraded)
			}
			if err := sameClone(repo, dir+"/clone"); err != nil {
				t.Errorf("afterwards, through the same mount: %v", err)
			}
			if err := sameClone(repo, c.Mount("demo", "b")+"/clone"); err != nil {
				t.Errorf("afterwards, through a new mount: %v", err)
			}
		})
	}
}

// standstill stops all servers for longer than the life of a session: 15 s, by
// the servers' count a tenth more.
func standstill(c *cluster.Cluster) {
	servers := c.Status().Servers
	for _, s := range servers {
		c.Signal(s, syscall.SIGSTOP)
	}
	time.Sleep(20 * time.Second) // the fault's length: longer than a session's life
	for _, s := range servers {
		c.Signal(s, syscall.SIGCONT)
	}
}
