package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Programs work on two mounts at once, and each mount sees what the other
// wrote.
func TestPrograms(t *testing.T) {
	fit(t, "git", "sqlite3", "rsync", "tar", "diff", "go")
	if testing.Short() {
		t.Skip("long")
	}
	repo := repository(t, 60)
	c := start(t, 3)
	m := []string{c.Mount("demo", "a"), c.Mount("demo", "b")}
	// both runs fn for both mounts at once: here is its own, there the other.
	both := func(t *testing.T, fn func(i int, here, there string) error) {
		t.Helper()
		errc := make(chan error, 2)
		for i := range m {
			go func() { errc <- fn(i, m[i], m[1-i]) }()
		}
		for range m {
			if err := <-errc; err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
	}

	t.Run("git", func(t *testing.T) {
		clone := func(dir string, i int) string { return filepath.Join(dir, fmt.Sprint("clone", i)) }
		both(t, func(i int, here, _ string) error {
			if err := try(here, "git", "clone", "-q", repo, clone(here, i)); err != nil {
				return err
			}
			return try(clone(here, i), "git", "gc", "-q", "--prune=now")
		})
		both(t, func(i int, _, there string) error { return sameClone(repo, clone(there, i)) })
	})
	t.Run("sqlite", func(t *testing.T) {
		db := func(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("own%d.db", i)) }
		const rows = 15
		both(t, func(i int, here, _ string) error { return insert(db(here, i), 0, rows) })
		both(t, func(i int, _, there string) error { return checkRows(db(there, i), rows) })
		for i := range 8 { // one database, used alternately
			if err := insert(filepath.Join(m[i%2], "shared.db"), i*3, i*3+3); err != nil {
				t.Fatal(err)
			}
		}
		both(t, func(_ int, here, _ string) error { return checkRows(filepath.Join(here, "shared.db"), 24) })
	})
	t.Run("rsync", func(t *testing.T) {
		links(t, repo)
		both(t, func(i int, here, _ string) error {
			return try(here, "rsync", "-aH", repo+"/", fmt.Sprintf("%s/rsync%d/", here, i))
		})
		both(t, func(i int, _, there string) error {
			out, err := output(there, "rsync", "-aHnc", "--delete", "--itemize-changes", repo+"/", fmt.Sprintf("%s/rsync%d/", there, i))
			if err == nil && out != "" {
				err = fmt.Errorf("rsync finds differences:\n%s", out)
			}
			return err
		})
	})
	t.Run("tar", func(t *testing.T) {
		both(t, func(i int, here, _ string) error {
			return try(here, "tar", "-C", repo, "-cf", fmt.Sprintf("t%d.tar", i), ".")
		})
		both(t, func(i int, _, there string) error {
			dir := fmt.Sprintf("%s/untar%d", there, i)
			if err := os.Mkdir(dir, 0o755); err != nil {
				return err
			}
			return try(dir, "tar", "-xf", fmt.Sprintf("../t%d.tar", i))
		})
		both(t, func(i int, here, _ string) error {
			dir := fmt.Sprintf("%s/untar%d", here, i)
			if err := try(dir, "tar", "-df", fmt.Sprintf("../t%d.tar", i)); err != nil { // modes, owners, times too
				return err
			}
			return try(here, "diff", "-r", "--no-dereference", repo, dir)
		})
	})
	t.Run("go build", func(t *testing.T) {
		both(t, func(i int, here, _ string) error { return goBuild(filepath.Join(here, fmt.Sprint("module", i))) })
	})
}

func insert(db string, from, to int) error {
	for i := from; i < to; i++ {
		if err := sql(db, fmt.Sprintf("create table if not exists t(i integer primary key, v text); insert into t values(%d, 'row %d')", i, i)); err != nil {
			return err
		}
	}
	return nil
}

// links adds to a tree what plain files lack.
func links(t *testing.T, dir string) {
	t.Helper()
	for _, err := range []error{
		os.Symlink("dir1/file1.txt", filepath.Join(dir, "symlink")),
		os.Symlink("nowhere", filepath.Join(dir, "dangling")),
		os.Link(filepath.Join(dir, "dir2", "file2.txt"), filepath.Join(dir, "hardlink")),
		os.Chmod(filepath.Join(dir, "dir3", "file3.txt"), 0o700),
		syscall.Chmod(filepath.Join(dir, "dir4"), 0o2750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// goBuild builds a module with its cache and temporary files on the mount,
// twice; the second time everything is found in the cache.
func goBuild(dir string) error {
	for name, text := range map[string]string{
		"go.mod":     "module example.test/tiny\n\ngo 1.22\n",
		"one/one.go": "package one\n\nfunc One() int { return 1 }\n",
		"two/two.go": "package two\n\nimport \"example.test/tiny/one\"\n\nfunc Two() int { return one.One() + one.One() }\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return err
	}
	env := []string{"env", "GOCACHE=" + filepath.Join(dir, "cache"), "GOTMPDIR=" + tmp, "GO111MODULE=on"}
	build := append(env, "go", "build", "-v", "./...")
	for i, want := range []string{"example.test/tiny/one\nexample.test/tiny/two", ""} {
		out, err := output(dir, append([]string{"sh", "-c", `exec "$@" 2>&1`, "sh"}, build...)...)
		if err != nil {
			return err
		}
		if strings.TrimSpace(out) != want {
			return fmt.Errorf("go build, time %d, built %q, want %q", i+1, out, want)
		}
	}
	return nil
}
