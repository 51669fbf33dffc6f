package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// work is a program at work on a mount, in a goroutine of its own.
type work struct {
	name  string
	begun func() bool                 // it is in the middle
	run   func(<-chan struct{}) error // ends well only if all results are right; may go on until the channel closes
	err   chan error
}

// works starts git, SQLite and fio in dir at once.
func works(t *testing.T, dir, repo string) (all []*work, enough chan struct{}) {
	t.Helper()
	enough = make(chan struct{})
	all = append(all, gitWork(dir, repo), sqliteWork(filepath.Join(dir, "db")))
	if _, err := exec.LookPath("fio"); err == nil {
		all = append(all, fioWork(filepath.Join(dir, "fio")))
	} else {
		t.Logf("without fio: %v", err)
	}
	for _, w := range all {
		w.err = make(chan error, 1)
		go func() { w.err <- w.run(enough) }()
	}
	return all, enough
}

// gitWork clones repo and checks the clone.
func gitWork(dir, repo string) *work {
	clone := filepath.Join(dir, "clone")
	return &work{
		name:  "git",
		begun: func() bool { _, err := os.Stat(filepath.Join(clone, ".git", "objects")); return err == nil },
		run: func(<-chan struct{}) error {
			// --no-hardlinks is implied between filesystems; --no-local makes
			// git write a pack as over a network.
			if err := try(dir, "git", "clone", "-q", "--no-local", repo, clone); err != nil {
				return err
			}
			return sameClone(repo, clone)
		},
	}
}

// sameClone checks a clone against what it was made from.
func sameClone(repo, clone string) error {
	if err := try(clone, "git", "fsck", "--full", "--strict"); err != nil {
		return err
	}
	if out, err := output(clone, "git", "status", "--porcelain"); err != nil || out != "" {
		return fmt.Errorf("git status: %v\n%s", err, out)
	}
	if out, err := output(repo, "diff", "-r", "--exclude=.git", repo, clone); err != nil {
		return fmt.Errorf("contents differ: %w\n%s", err, out)
	}
	return nil
}

// sqliteWork commits rows, one transaction of one process each, and checks
// that every row whose commit was reported is there.
func sqliteWork(dir string) *work {
	const least = 20
	var rows atomic.Int64
	db := filepath.Join(dir, "rows.db")
	return &work{
		name:  "sqlite",
		begun: func() bool { return rows.Load() >= 5 },
		run: func(enough <-chan struct{}) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := sql(db, "create table t(i integer primary key, v text)"); err != nil {
				return err
			}
			for closed := false; !closed || rows.Load() < least; {
				i := rows.Load()
				if err := sql(db, fmt.Sprintf("begin; insert into t values(%d, hex(randomblob(300))); insert into t values(%d, 'second'); commit", 2*i, 2*i+1)); err != nil {
					return fmt.Errorf("row %d: %w", i, err)
				}
				rows.Add(1)
				select {
				case <-enough:
					closed = true
				default:
				}
			}
			return checkRows(db, 2*rows.Load())
		},
	}
}

func sql(db, text string) error {
	return try(filepath.Dir(db), "sqlite3", db, "pragma synchronous=full; "+text+";")
}

func checkRows(db string, want int64) error {
	out, err := output(filepath.Dir(db), "sqlite3", db, "pragma integrity_check; select count(*), max(i) from t;")
	if err != nil {
		return err
	}
	if exp := fmt.Sprintf("ok\n%d|%d", want, want-1); strings.TrimSpace(out) != exp {
		return fmt.Errorf("database says %q, want %q", out, exp)
	}
	return nil
}

// fioWork writes at random places with fsync and verifies every block.
func fioWork(dir string) *work {
	return &work{
		name:  "fio",
		begun: func() bool { fi, err := os.Stat(filepath.Join(dir, "verify.0.0")); return err == nil && fi.Size() > 0 },
		run: func(<-chan struct{}) error {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			return try(dir, "fio", "--name=verify", "--directory="+dir, "--rw=randwrite", "--bs=4k", "--size=4m", "--fsync=16",
				"--ioengine=psync", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--randseed=7")
		},
	}
}

// end waits for all work to end well.
func end(t *testing.T, all []*work) {
	t.Helper()
	limit := time.After(2 * workLimit)
	for _, w := range all {
		select {
		case err := <-w.err:
			if err != nil {
				t.Errorf("%s: %v", w.name, err)
			}
		case <-limit:
			t.Fatalf("%s does not end", w.name)
		}
	}
}
