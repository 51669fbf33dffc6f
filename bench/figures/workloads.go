package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// workload is one line of the table.
type workload struct {
	name    string
	unit    string
	smaller bool // smaller is better
	run     func(job) (float64, error)
}

// job is one run of a workload in a directory of its own that does not exist
// yet.
type job struct {
	dir   string
	scale float64
	src   source
	npm   string // project for npm ci, "" = leave it out
}

// errSkip leaves a workload out.
var errSkip = errors.New("left out")

func (j job) count(n int) int { return max(1, int(float64(n)*j.scale)) }

// source is what untar and clone read.
type source struct {
	tar, repo string
	files     int
}

var workloads = []workload{
	{"sequential write 1 MiB, fsync at the end", "MiB/s", false, seqWrite},
	{"sequential read, caches dropped", "MiB/s", false, seqRead},
	{"4 KiB random write + fsync", "ops/s", false, randWrite},
	{"create + write 4 KiB + close", "files/s", false, func(j job) (float64, error) { return createFiles(j, 500, false) }},
	{"create + write 4 KiB + fsync + close", "files/s", false, func(j job) (float64, error) { return createFiles(j, 200, true) }},
	{"open + read 4 KiB + close", "files/s", false, readFiles},
	{"stat", "ops/s", false, statFiles},
	{"untar", "files/s", false, untar},
	{"git clone", "s", true, clone},
	{"rm -rf", "files/s", false, remove},
}

// prepare makes the archive and the repository outside of what is measured.
func prepare(c config, tmp string) (source, error) {
	tree := c.tree
	args := []string{"-C", tree, "."}
	if tree == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return source{}, fmt.Errorf("go env GOROOT: %w; give --tree", err)
		}
		args = []string{"-C", filepath.Join(strings.TrimSpace(string(root)), "src"), "net", "go"}
	}
	s := source{tar: filepath.Join(tmp, "tree.tar"), repo: filepath.Join(tmp, "repo")}
	if err := command("tar", append([]string{"cf", s.tar}, args...)...); err != nil {
		return s, err
	}
	if err := os.Mkdir(s.repo, 0o755); err != nil {
		return s, err
	}
	if err := command("tar", "xf", s.tar, "-C", s.repo); err != nil {
		return s, err
	}
	err := filepath.WalkDir(s.repo, func(_ string, _ os.DirEntry, err error) error {
		s.files++
		return err
	})
	if err != nil {
		return s, err
	}
	for _, cmd := range [][]string{
		{"init", "-q"}, {"add", "-A"},
		{"-c", "user.name=figures", "-c", "user.email=figures@localhost", "commit", "-qm", "tree"},
	} {
		if err := command("git", append([]string{"-C", s.repo}, cmd...)...); err != nil {
			return s, err
		}
	}
	return s, nil
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}

// dropCaches empties the kernel's caches, so that reads ask the filesystem.
func dropCaches() error {
	if err := command("sync"); err != nil {
		return err
	}
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

const mib = 1 << 20

func writeBig(j job, name string, size int) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	buf := make([]byte, mib)
	r := rand.NewChaCha8([32]byte{1})
	for range size {
		if _, err := r.Read(buf); err != nil {
			return err
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return f.Sync()
}

func seqWrite(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	n := j.count(256)
	start := time.Now()
	err := writeBig(j, filepath.Join(j.dir, "big"), n)
	return per(n, start), err
}

func seqRead(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	n, name := j.count(256), filepath.Join(j.dir, "big")
	if err := writeBig(j, name, n); err != nil {
		return 0, err
	}
	if err := dropCaches(); err != nil {
		return 0, err
	}
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	start := time.Now()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{f}, make([]byte, mib))
	return per(n, start), err
}

func randWrite(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	name := filepath.Join(j.dir, "big")
	if err := writeBig(j, name, 16); err != nil {
		return 0, err
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, r, buf := j.count(200), rand.New(rand.NewPCG(1, 2)), make([]byte, 4096)
	start := time.Now()
	for range n {
		if _, err := f.WriteAt(buf, r.Int64N(16*mib/4096)*4096); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
	}
	return per(n, start), nil
}

func makeFiles(j job, n int, sync bool) error {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return err
	}
	buf := make([]byte, 4096)
	for i := range n {
		f, err := os.Create(fileName(j, i))
		if err != nil {
			return err
		}
		if _, err := f.Write(buf); err != nil {
			return err
		}
		if sync {
			if err := f.Sync(); err != nil {
				return err
			}
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func fileName(j job, i int) string { return filepath.Join(j.dir, fmt.Sprintf("f%05d", i)) }

func createFiles(j job, n int, sync bool) (float64, error) {
	defer os.RemoveAll(j.dir)
	n = j.count(n)
	start := time.Now()
	err := makeFiles(j, n, sync)
	return per(n, start), err
}

func readFiles(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	n := j.count(500)
	if err := makeFiles(j, n, false); err != nil {
		return 0, err
	}
	start := time.Now()
	for i := range n {
		if _, err := os.ReadFile(fileName(j, i)); err != nil {
			return 0, err
		}
	}
	return per(n, start), nil
}

func statFiles(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	n := j.count(500)
	if err := makeFiles(j, n, false); err != nil {
		return 0, err
	}
	start := time.Now()
	for i := range n {
		if _, err := os.Lstat(fileName(j, i)); err != nil {
			return 0, err
		}
	}
	return per(n, start), nil
}

func untar(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	start := time.Now()
	err := command("tar", "xf", j.src.tar, "-C", j.dir)
	return per(j.src.files, start), err
}

func clone(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	start := time.Now()
	err := command("git", "clone", "-q", "--no-local", j.src.repo, j.dir)
	return time.Since(start).Seconds(), err
}

func remove(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	if err := command("tar", "xf", j.src.tar, "-C", j.dir); err != nil {
		return 0, err
	}
	start := time.Now()
	err := command("rm", "-rf", j.dir)
	return per(j.src.files, start), err
}
