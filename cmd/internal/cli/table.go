package cli

import (
	"context"
	"strings"
)

// Arg is a positional argument.
type Arg struct {
	Name     string
	Optional bool
	Help     string
}

// Example is a command line and what it does.
type Example struct{ Line, Does string }

// Command is one verb.
type Command struct {
	Name     string // "mount", "drive create"
	Summary  string // one line, no full stop
	Help     string // paragraphs that teach
	Args     []Arg
	Flags    []Flag
	Examples []Example
	Hidden   bool
	Run      func(ctx context.Context, a *App, in *Input) error
}

func (c *Command) allFlags() []Flag {
	return append(c.Flags[:len(c.Flags):len(c.Flags)], jsonFlag, helpFlag)
}

// Flags that several verbs share.
var (
	jsonFlag     = Flag{Name: "json", Help: "print JSON; errors as {error, kind, hint} on standard error"}
	helpFlag     = Flag{Name: "help", Short: "h", NoEnv: true, Help: "explain this verb"}
	dataFlag     = Flag{Name: "data", Type: Text, Value: "DIR", Default: "./data", Help: "data directory of the local cluster and of this host's mounts"}
	serversFlag  = Flag{Name: "servers", Type: Addrs, Value: "HOST:PORT,...", Help: "metaservers of a remote cluster, instead of the local one"}
	logLevelFlag = Flag{Name: "log-level", Type: Choice, Value: "LEVEL", Default: "info", Choices: []string{"debug", "info", "warn", "error"}, Help: "least important log messages to write"}
	readyFlag    = Flag{Name: "ready-fd", Type: Number, Value: "FD", Hidden: true}
	parentFlag   = Flag{Name: "parent-fd", Type: Number, Value: "FD", Hidden: true}
)

func timeoutFlag(what string) Flag {
	return Flag{Name: "timeout", Type: Duration, Value: "TIME", Default: "60s", Help: "give up after this time; " + what}
}

func find(name string) *Command {
	for _, c := range Commands() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Commands is the table of verbs, in the order of the documentation.
func Commands() []*Command {
	table := []*Command{upCommand(), downCommand(), statusCommand(), logsCommand()}
	table = append(table, driveCommands()...)
	table = append(table, mountCommand(), umountCommand(), syncCommand(), statsCommand(), metaserverCommand(), chunkserverCommand())
	return append(table, doctorCommand(), versionCommand(), helpCommand())
}

func upCommand() *Command {
	return &Command{
		Name: "up", Run: runUp, Summary: "start a cluster on this machine",
		Help: `Starts the servers of the data directory, creating them the first time, and prints one line, "ready", when they serve. It runs until SIGTERM or Ctrl-C, or in the background with --detach.

With one node, the default, all servers run inside this one process and keep ONE copy of everything: a lost disk is lost data. With --nodes 3 there are three metaservers and three chunkservers, each a process of its own that is started again 10 s after it dies. Any one of each may fail while work goes on. All are on this machine, so this protects against a failing process, not a failing disk; for that see "Three hosts" in the README.

The number of nodes is chosen once. The servers end with "up", however it ends; it starts again on the same data, after kill -9 too.`,
		Flags: []Flag{
			dataFlag,
			{Name: "nodes", Type: Number, Value: "N", Help: "metaservers and chunkservers to run: 1, or 3 to 9 (default: as created, or 1)"},
			{Name: "groups", Type: Number, Value: "N", Help: "Raft groups that hold drives, fixed once the cluster is formed; more use more disks and processors (default: as created, or 1)"},
			{Name: "detach", NoEnv: true, Help: "run in the background, return when ready"},
			{Name: "no-respawn", Help: "leave servers dead that die"},
			timeoutFlag("the cluster must serve by then"), logLevelFlag, readyFlag,
		},
		Examples: []Example{
			{"agentdrive up", "one process, one copy, in ./data"},
			{"agentdrive up --nodes 3 --detach", "three of each, in the background"},
		},
	}
}

func downCommand() *Command {
	return &Command{
		Name: "down", Run: runDown, Summary: "stop the cluster on this machine and its mounts",
		Help:  `Unmounts the mounts of the data directory, flushing them first, then stops all servers and waits until they are gone. Programs that still have files open in a mount are cut off after the flush; they are named. Data stays; "up" starts it again. When nothing runs, there is nothing to do, and that is a success.`,
		Flags: []Flag{dataFlag, timeoutFlag("servers that did not stop by then are killed"), {Name: "force", NoEnv: true, Help: "discard buffered writes that cannot be flushed, saying how much"}},
		Examples: []Example{
			{"agentdrive down", "stop what runs in ./data"},
		},
	}
}

func statusCommand() *Command {
	return &Command{
		Name: "status", Run: runStatus, Summary: "show servers, drives, mounts and what is degraded",
		Help: `Healthy means: all servers are up, every Raft group has a leader, and the repair list is empty. Serving means: majorities live, so that work goes on.

Without --wait it exits with 0 when healthy, 7 when degraded, 5 when no server answers. With --wait it returns 0 as soon as the state is reached, and 5 when it is not in time.`,
		Flags: []Flag{
			dataFlag, serversFlag,
			{Name: "wait", NoEnv: true, Help: "wait until the cluster is healthy, or what --for says"},
			{Name: "for", Type: Choice, Value: "STATE", Default: "healthy", Choices: []string{"healthy", "serving"}, NoEnv: true, Help: "state to wait for"},
			timeoutFlag("only with --wait"),
		},
		Examples: []Example{
			{"agentdrive status", "a report to read"},
			{"agentdrive status --wait --for serving --timeout 30s", "continue when work can go on"},
			{"agentdrive status --json | jq .degraded", "what is wrong"},
		},
	}
}

func logsCommand() *Command {
	return &Command{
		Name: "logs", Run: runLogs, Summary: "show the logs of local servers and mounts",
		Args: []Arg{{Name: "ROLE", Optional: true, Help: "metaserver, chunkserver, up or mount, or one of them: metaserver-2"}},
		Flags: []Flag{
			dataFlag,
			{Name: "follow", Short: "f", NoEnv: true, Help: "go on with what is written"},
			{Name: "lines", Short: "n", Type: Number, Value: "N", Default: "20", NoEnv: true, Help: "lines of each log to begin with"},
		},
		Examples: []Example{
			{"agentdrive logs chunkserver -f", "watch all chunkservers"},
			{"agentdrive logs metaserver-2 -n 100", "the last 100 lines of one server"},
		},
	}
}

func driveCommands() []*Command {
	name := []Arg{{Name: "NAME", Help: "name of the drive"}}
	timeout := timeoutFlag("the servers must answer by then")
	return []*Command{
		{
			Name: "drive create", Run: runDriveCreate, Summary: "create a drive", Args: name,
			Help:     `A drive is a filesystem of its own: it can be mounted in many places at once, whole or in parts.`,
			Flags:    []Flag{dataFlag, serversFlag, {Name: "if-not-exists", NoEnv: true, Help: "succeed when the drive is there already"}, timeout},
			Examples: []Example{{"agentdrive drive create demo", ""}},
		},
		{Name: "drive list", Run: runDriveList, Summary: "list all drives", Flags: []Flag{dataFlag, serversFlag, timeout}},
		{Name: "drive get", Run: runDriveGet, Summary: "show one drive", Args: name, Flags: []Flag{dataFlag, serversFlag, timeout}},
		{
			Name: "drive set", Run: runDriveSet, Summary: "limit what a drive may take", Args: name,
			Help: `Work that would make the drive grow beyond a limit fails with EDQUOT ("disk quota exceeded"); df shows the limit as the size of the filesystem. Files are inodes of every type, those included that are deleted but still open somewhere. Bytes are those written: a hole takes none.

A limit below what is there already deletes nothing; it stops growth. A limit that is not named stays as it is.`,
			Flags: []Flag{
				dataFlag, serversFlag,
				{Name: "max-bytes", Type: Size, Value: "SIZE", NoEnv: true, Help: "bytes like 500M, 10GiB, 2TB (K = KiB = 1024, KB = 1000); 0 or none: no limit"},
				{Name: "max-files", Type: Count, Value: "N", NoEnv: true, Help: "files; 0 or none: no limit"},
				timeout,
			},
			Examples: []Example{
				{"agentdrive drive set demo --max-bytes 10GiB --max-files 1000000", ""},
				{"agentdrive drive set demo --max-bytes none", "take the limit of bytes away"},
			},
		},
		{
			Name: "drive delete", Run: runDriveDelete, Summary: "delete a drive and everything in it", Args: name,
			Help:  `Refuses while the drive is mounted somewhere, unless --force: those mounts then answer with errors.`,
			Flags: []Flag{dataFlag, serversFlag, {Name: "force", NoEnv: true, Help: "even while it is mounted"}, timeout},
		},
	}
}

func mountCommand() *Command {
	return &Command{
		Name: "mount", Run: runMount, Summary: "mount a drive, or a subtree of it",
		Help: `Returns once the drive is mounted; a daemon in the background serves it. DIR is created if it is missing, and must be empty. Mounting the same drive, path and mode there again is a success that changes nothing.

With --path only that subtree is visible, and nothing in it leads out. It is created when missing, unless --read-only.`,
		Args: []Arg{{Name: "DRIVE", Help: "name of the drive"}, {Name: "DIR", Help: "empty or new directory"}},
		Flags: []Flag{
			dataFlag, serversFlag,
			{Name: "path", Type: Text, Value: "/SUB", Default: "/", NoEnv: true, Help: "subtree to mount"},
			{Name: "read-only", Help: "refuse all changes"},
			{Name: "strict", Help: "answer every change only when it is durable on a majority; without it a crash of this host may lose the last moment of what was not fsynced"},
			{Name: "allow-other", Help: "let other users in, by the permissions of the files"},
			{Name: "foreground", NoEnv: true, Help: "serve in this process until unmounted or SIGTERM"},
			{Name: "metrics", Type: Address, Value: "HOST:PORT", NoEnv: true, Help: "answer GET /metrics there, for Prometheus"},
			timeoutFlag("the mount must stand by then"), logLevelFlag, readyFlag,
		},
		Examples: []Example{
			{"agentdrive mount demo /mnt/demo", "the whole drive"},
			{"agentdrive mount demo /mnt/alpha --path /projects/alpha --read-only", "a part of it, to look at"},
			{"agentdrive mount demo /mnt/demo --servers ms1:7001,ms2:7001,ms3:7001", "from a remote cluster"},
		},
	}
}

func umountCommand() *Command {
	return &Command{
		Name: "umount", Run: runUmount, Summary: "flush and unmount",
		Help: `Brings all buffered writes to the servers, then unmounts. A mount with open files is busy: the error names the programs. --lazy detaches it at once and serves those programs until they close their files. --force does not flush and cuts them off, and says what it discards.

A mount whose daemon has died is cleaned up too, and it says so.`,
		Args: []Arg{{Name: "DIR", Help: "the mount point"}},
		Flags: []Flag{
			dataFlag,
			{Name: "lazy", NoEnv: true, Help: "detach a busy mount"},
			{Name: "force", NoEnv: true, Help: "discard buffered writes, cut off open files"},
			timeoutFlag("the flush must be done by then"),
		},
		Examples: []Example{{"agentdrive umount /mnt/demo", ""}},
	}
}

func syncCommand() *Command {
	return &Command{
		Name: "sync", Run: runSync, Summary: "make everything written on a mount durable",
		Help:     `The kernel does not pass sync(2) and syncfs(2) to filesystems like this one; this verb does their work. When it returns, everything that was written on that mount before is on stable storage of a majority.`,
		Args:     []Arg{{Name: "DIR", Help: "a mount point, or a directory in it"}},
		Flags:    []Flag{dataFlag, timeoutFlag("")},
		Examples: []Example{{"agentdrive sync /mnt/demo", ""}},
	}
}

func serverFlags() []Flag {
	return []Flag{
		dataFlag,
		{Name: "listen", Type: Address, Value: "HOST:PORT", Help: "address to serve on, as the others reach it"},
		{Name: "id", Type: Number, Value: "N", Help: "number of this server in its role, from 1, for ever"},
		{Name: "cluster", Type: Text, Value: "ID", Help: "id of the cluster in hex; refuse any other (default: the directory's, or the peers')"},
		logLevelFlag, parentFlag,
	}
}

func metaserverCommand() *Command {
	return &Command{
		Name: "metaserver", Run: runMetaserver, Summary: "run one metadata server of a cluster formed by hand",
		Help: `Runs until SIGTERM. All metaservers are given the same --peers, themselves included; the first time, that list forms the cluster. Three survive the loss of any one, five of any two.

The network between servers and mounts must be trusted: there is no TLS yet.`,
		Flags: append([]Flag{
			{Name: "peers", Type: Text, Value: "ID=HOST:PORT,...", Help: "all metaservers of the cluster"},
			{Name: "copies", Type: Number, Value: "N", Default: "3", Help: "copies that new drives keep of each block: 3, or 1"},
			{Name: "groups", Type: Number, Value: "N", Default: "1", Help: "Raft groups that hold drives, the same on all metaservers and fixed once the cluster is formed"},
		}, serverFlags()...),
		Examples: []Example{{"agentdrive metaserver --data /srv/ad/meta --listen ms1:7001 --id 1 --peers 1=ms1:7001,2=ms2:7001,3=ms3:7001", ""}},
	}
}

func chunkserverCommand() *Command {
	return &Command{
		Name: "chunkserver", Run: runChunkserver, Summary: "run one chunk server of a cluster formed by hand",
		Help:     `Runs until SIGTERM. It joins the cluster of the metaservers given as --peers.`,
		Flags:    append([]Flag{{Name: "peers", Type: Addrs, Value: "HOST:PORT,...", Help: "the metaservers of the cluster"}}, serverFlags()...),
		Examples: []Example{{"agentdrive chunkserver --data /srv/ad/chunk --listen cs1:7002 --id 1 --peers ms1:7001,ms2:7001,ms3:7001", ""}},
	}
}

func doctorCommand() *Command {
	return &Command{
		Name: "doctor", Run: runDoctor, Summary: "check what this host has and lacks",
		Help:  `Looks at the kernel, FUSE, disk space and the data directory, and says what to do about each finding. Exits with 0 unless something required is missing.`,
		Flags: []Flag{dataFlag},
	}
}

func versionCommand() *Command {
	return &Command{Name: "version", Run: runVersion, Summary: "print the version of this program"}
}

func helpCommand() *Command {
	return &Command{
		Name: "help", Run: runHelp, Summary: "explain a verb, or list them all",
		Args: []Arg{{Name: "VERB", Optional: true, Help: `like "mount", "drive", or "environment"`}, {Name: "VERB2", Optional: true, Help: `second word, as in "drive create"`}},
	}
}

// words of the usage line.
func (c *Command) usageLine() string {
	parts := []string{"agentdrive", c.Name}
	for _, a := range c.Args {
		if a.Optional {
			parts = append(parts, "["+a.Name+"]")
		} else {
			parts = append(parts, a.Name)
		}
	}
	return strings.Join(append(parts, "[FLAGS]"), " ")
}
