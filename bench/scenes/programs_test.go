package scenes

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
)

// Both commit to one git repository, by turns in one work tree: each finds the
// other's commit, index and files.
func TestGitByTurns(t *testing.T) {
	s := play(t, 1, "git")
	s.must("git init", func() error { return command(s.a, "git", "init", "-q", "-b", "main", "repo") })
	const turns = 12
	for i := range turns {
		me, other := s.a+"/repo", s.b+"/repo"
		if i%2 == 1 {
			me, other = other, me
		}
		file := fmt.Sprintf("file%d", i%3) // the other's, of the turn before last
		s.must("write", func() error { return write(me+"/"+file, fmt.Sprintln("turn", i)) })
		s.must("git add", func() error { return command(me, "git", "add", ".") })
		s.must("git commit", func() error { return command(me, "git", "commit", "-q", "-m", fmt.Sprint("turn ", i)) })
		s.must("git status elsewhere", func() error {
			out, err := output(other, "git", "status", "--porcelain")
			if err == nil && out != "" {
				err = fmt.Errorf("turn %d: not clean:\n%s", i, out)
			}
			return err
		})
		s.must("git log elsewhere", func() error {
			out, err := output(other, "git", "log", "-1", "--format=%s")
			if err == nil && strings.TrimSpace(out) != fmt.Sprint("turn ", i) {
				err = fmt.Errorf("turn %d: the other sees %q", i, out)
			}
			return err
		})
	}
	checkRepository(s, s.a+"/repo", turns)
	checkRepository(s, s.b+"/repo", turns)
}

func checkRepository(s *scene, repo string, commits int) {
	s.Helper()
	s.must("git fsck", func() error { return command(repo, "git", "fsck", "--full", "--strict") })
	s.must("git rev-list", func() error {
		out, err := output(repo, "git", "rev-list", "--count", "--all")
		if err == nil && strings.TrimSpace(out) != fmt.Sprint(commits) {
			err = fmt.Errorf("%s: %q commits, want %d", repo, out, commits)
		}
		return err
	})
}

// Both commit at once, each in a work tree of its own, to one repository. Git
// locks by O_EXCL files and gives up at once where it finds one; then it is
// tried again.
func TestGitTogether(t *testing.T) {
	s := play(t, 1, "git")
	s.must("git init", func() error { return command(s.a, "git", "init", "-q", "-b", "main", "repo") })
	s.must("git commit", func() error { return command(s.a+"/repo", "git", "commit", "-q", "--allow-empty", "-m", "first") })
	for _, x := range []string{"a", "b"} {
		s.must("git worktree", func() error {
			// relative paths: the mounts' differ
			return command(s.a+"/repo", "git", "-c", "worktree.useRelativePaths=true", "worktree", "add", "-q", "-b", x, "../"+x)
		})
	}
	const each = 10
	var again atomic.Int64
	s.both(func(dir string) error {
		me := "a"
		if dir == s.b {
			me = "b"
		}
		// The repository names its work trees by the paths of mount a, unless
		// git knows relative ones; so each is told where everything is.
		env := []string{"env", "GIT_DIR=" + dir + "/repo/.git/worktrees/" + me, "GIT_WORK_TREE=" + dir + "/" + me}
		for i := range each {
			if err := write(fmt.Sprintf("%s/%s/file%d", dir, me, i), fmt.Sprintln(me, i)); err != nil {
				return err
			}
			for _, args := range [][]string{{"git", "add", "."}, {"git", "commit", "-q", "-m", fmt.Sprint(me, " ", i)}} {
				err := s.timed(strings.Join(args[:2], " "), func() error { return command(dir+"/"+me, append(env, args...)...) })
				for ; err != nil && strings.Contains(err.Error(), "File exists"); again.Add(1) {
					err = command(dir+"/"+me, append(env, args...)...)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
	t.Logf("%d commands met the other's lock", again.Load())
	checkRepository(s, s.a+"/repo", 2*each+1)
	checkRepository(s, s.b+"/repo", 2*each+1)
}

// SQLite with DELETE journal: by turns, then both at once, which wait for each
// other by fcntl locks.
func TestSQLite(t *testing.T) {
	s := play(t, 1, "sqlite3")
	sql := func(dir, text string) (string, error) {
		out, err := output(dir, "sqlite3", "-cmd", ".timeout 30000", "rows.db", "pragma journal_mode=delete; pragma synchronous=full; "+text)
		return strings.TrimPrefix(strings.TrimSpace(out), "delete"), err
	}
	s.must("create table", func() error {
		_, err := sql(s.a, "create table t(i integer primary key, who text)")
		return err
	})
	const turns, each = 24, 15
	for i := range turns {
		me, other := s.a, s.b
		if i%2 == 1 {
			me, other = other, me
		}
		s.must("transaction", func() error {
			_, err := sql(me, fmt.Sprintf("begin immediate; insert into t(who) values('turn'); update t set who='turn %d' where i=(select max(i) from t); commit", i))
			return err
		})
		s.must("query elsewhere", func() error {
			out, err := sql(other, "select count(*) from t")
			if err == nil && strings.TrimSpace(out) != fmt.Sprint(i+1) {
				err = fmt.Errorf("turn %d: %q rows", i, out)
			}
			return err
		})
	}
	s.both(func(dir string) error {
		for range each {
			if err := s.timed("transaction, both at once", func() error {
				_, err := sql(dir, "begin immediate; insert into t(who) values('both'); commit")
				return err
			}); err != nil {
				return err
			}
		}
		return nil
	})
	for _, dir := range []string{s.a, s.b} {
		out, err := sql(dir, "pragma integrity_check; select count(*) from t")
		if want := fmt.Sprintf("ok\n%d", turns+2*each); err != nil || strings.TrimSpace(out) != want {
			t.Errorf("%s: %q, %v, want %q", dir, out, err, want)
		}
	}
}
