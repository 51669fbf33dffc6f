package scenes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// content of the i-th file of a tree.
func content(i int) string { return strings.Repeat(fmt.Sprintf("line of file %d\n", i), 1+i%200) }

func treeName(i int) string { return fmt.Sprintf("d%d/f%d", i/50, i) }

// tarball packs a tree of n files on the host's own disk.
func tarball(t *testing.T, n int) (tree, tar string) {
	t.Helper()
	tree = filepath.Join(t.TempDir(), "tree")
	for i := range n {
		if err := write(filepath.Join(tree, treeName(i)), content(i)); err != nil {
			t.Fatal(err)
		}
	}
	tar = tree + ".tar"
	if err := command(filepath.Dir(tree), "tar", "-cf", tar, "tree"); err != nil {
		t.Fatal(err)
	}
	return tree, tar
}

// glance lists a tree that comes into being, and reads it: of each file it
// must see a beginning, and what it has seen complete stays.
func glance(s *scene, dir string, complete map[string]bool) error {
	here := map[string]bool{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		here[rel] = true
		var d, i int
		if _, err := fmt.Sscanf(rel, "d%d/f%d", &d, &i); err != nil {
			return fmt.Errorf("name %q that nobody made", rel)
		}
		var b []byte
		if err := s.timed("read elsewhere", func() (err error) { b, err = os.ReadFile(path); return err }); err != nil {
			return err
		}
		want := content(i)
		switch {
		case !strings.HasPrefix(want, string(b)):
			return fmt.Errorf("%s: %s is no beginning of %s", rel, brief(string(b)), brief(want))
		case complete[rel] && string(b) != want:
			return fmt.Errorf("%s was complete, and is %s", rel, brief(string(b)))
		case string(b) == want:
			complete[rel] = true
		}
		return nil
	})
	for rel := range complete {
		if !here[rel] && err == nil {
			err = fmt.Errorf("%s was there, and is not listed", rel)
		}
	}
	if errors.Is(err, os.ErrNotExist) && len(complete) == 0 {
		return nil // nothing there yet
	}
	return err
}

// One untars while the other lists and reads; both are right, and when tar has
// ended the other sees everything.
func TestUntarWatched(t *testing.T) {
	s := play(t, 1, "tar", "diff")
	untarWatched(s, 400, func() {})
}

// The same while the metadata leader dies.
func TestUntarLeaderKilled(t *testing.T) {
	s := play(t, 3, "tar", "diff")
	untarWatched(s, 250, func() { s.Signal(s.Leader(), syscall.SIGKILL) })
	s.WaitFor("healthy")
}

// The same while no metadata server answers for some seconds: both are cut off
// and wait, and go on.
func TestUntarCutOff(t *testing.T) {
	s := play(t, 3, "tar", "diff")
	untarWatched(s, 250, func() {
		all := s.Status().ByRole("metaserver")
		for _, m := range all {
			s.Signal(m, syscall.SIGSTOP)
		}
		time.Sleep(4 * time.Second) // the length of the cut, below a session's life
		for _, m := range all {
			s.Signal(m, syscall.SIGCONT)
		}
	})
	s.WaitFor("healthy")
}

// untarWatched runs fault when the other mount has seen some files.
func untarWatched(s *scene, n int, fault func()) {
	s.Helper()
	tree, tar := tarball(s.T, n)
	stop := s.probe()
	done := make(chan error, 1)
	go func() { done <- s.timed("untar of all", func() error { return command(s.a, "tar", "-xf", tar) }) }()
	complete, glances, faulty := map[string]bool{}, 0, false
	var faults sync.WaitGroup
	for ended := false; !ended; glances++ {
		select {
		case err := <-done:
			if err != nil {
				s.Fatal(err)
			}
			ended = true
		default:
		}
		if err := glance(s, s.b+"/tree", complete); err != nil {
			s.Fatal(err)
		}
		if ended && len(complete) != n {
			s.Fatalf("tar has ended, %d of %d files are complete", len(complete), n)
		}
		if !faulty && len(complete) > 0 {
			faulty = true
			faults.Go(fault)
		}
	}
	faults.Wait()
	stop()
	s.Logf("%d glances", glances)
	for _, dir := range []string{s.b, s.a} {
		s.must("diff -r", func() error { return command(dir, "diff", "-r", tree, "tree") })
	}
}

// rm -rf of many files that the other has listed: right after it the other has
// none of them.
func TestRemoveMany(t *testing.T) {
	s := play(t, 1, "rm", "find")
	const perDir = 500
	s.must("create all", func() error {
		for i := range *many {
			if err := write(fmt.Sprintf("%s/tree/d%d/f%d", s.a, i/perDir, i), "x"); err != nil {
				return err
			}
		}
		return nil
	})
	for round, dirs := range [][2]string{{s.a, s.b}, {s.b, s.a}} {
		remover, other := dirs[0], dirs[1]
		s.must("list all elsewhere", func() error {
			out, err := output(other, "find", "tree", "-type", "f", "-size", "1", "-printf", "x")
			if err == nil && len(out) != *many {
				err = fmt.Errorf("%d files, want %d", len(out), *many)
			}
			return err
		})
		if round == 0 { // everything but the directories, of which the other knows the names
			s.must("remove all files", func() error { return command(remover, "find", "tree", "-type", "f", "-delete") })
			s.must("list none elsewhere", func() error {
				out, err := output(other, "find", "tree", "-type", "f")
				if err == nil && out != "" {
					err = fmt.Errorf("still there: %s", brief(out))
				}
				return err
			})
			for i := 0; i < *many; i += 1 + *many/200 {
				if _, err := os.Lstat(fmt.Sprintf("%s/tree/d%d/f%d", other, i/perDir, i)); !errors.Is(err, os.ErrNotExist) {
					t.Fatalf("stat of removed file %d: %v", i, err)
				}
			}
			s.must("create all elsewhere", func() error {
				for i := range *many {
					if err := os.WriteFile(fmt.Sprintf("%s/tree/d%d/f%d", other, i/perDir, i), []byte("y"), 0o644); err != nil {
						return err
					}
				}
				return nil
			})
			continue
		}
		s.must("rm -rf", func() error { return command(remover, "rm", "-rf", "tree") })
		if list, err := names(other); err != nil || list != "" {
			t.Fatalf("after rm -rf: %q, %v", list, err)
		}
	}
}

// rm -rf by both at once.
func TestRemoveTogether(t *testing.T) {
	s := play(t, 1, "rm")
	for i := range 600 {
		if err := write(fmt.Sprintf("%s/tree/d%d/f%d", s.a, i/50, i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	s.both(func(dir string) error {
		return s.timed("rm -rf", func() error { return command(dir, "rm", "-rf", "tree") })
	})
	for _, dir := range []string{s.a, s.b} {
		if list, err := names(dir); err != nil || list != "" {
			t.Errorf("%s: %q, %v", dir, list, err)
		}
	}
}
