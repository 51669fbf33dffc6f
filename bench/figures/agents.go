package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// agentWork is what agents and their tools do, beyond single calls.
var agentWork = []workload{
	{"create + write 4 KiB + close, 4 threads", "files/s", false, createThreads},
	{"temporary + fsync + rename", "ops/s", false, saveFiles},
	{"rename", "ops/s", false, renameFiles},
	{"negative stat", "ops/s", false, negativeStat},
	{"cp -r", "s", true, copyTree},
	{"git status, warm", "s", true, gitStatus},
	{"grep -r, warm", "s", true, grepTree},
	{"find, warm", "s", true, findTree},
	{"SQLite, 1,000 transactions, DELETE journal", "s", true, sqlite},
	{"npm ci", "s", true, npmCI},
}

// timed runs fn after a warm-up of the same and returns seconds.
func timed(warm bool, fn func() error) (float64, error) {
	if warm {
		if err := fn(); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	err := fn()
	return time.Since(start).Seconds(), err
}

// unpack puts the tree into the job's directory.
func unpack(j job) error {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return err
	}
	return command("tar", "xf", j.src.tar, "-C", j.dir)
}

func createThreads(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	const threads = 4
	n := j.count(2000) / threads
	start := time.Now()
	var wg sync.WaitGroup
	failed := make([]error, threads)
	for t := range threads {
		wg.Add(1)
		go func() {
			defer wg.Done()
			failed[t] = makeFiles(job{dir: filepath.Join(j.dir, fmt.Sprint(t)), scale: j.scale}, n, false)
		}()
	}
	wg.Wait()
	for _, err := range failed {
		if err != nil {
			return 0, err
		}
	}
	return per(n*threads, start), nil
}

func saveFiles(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	n, buf := j.count(200), make([]byte, 4096)
	start := time.Now()
	for i := range n {
		if err := save(filepath.Join(j.dir, "tmp"), fileName(j, i%20), buf); err != nil {
			return 0, err
		}
	}
	return per(n, start), nil
}

// save replaces a file as editors do.
func save(tmp, name string, data []byte) error {
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp, name)
	}
	return err
}

func renameFiles(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	n := j.count(1000)
	if err := makeFiles(j, n, false); err != nil {
		return 0, err
	}
	start := time.Now()
	for i := range n {
		if err := os.Rename(fileName(j, i), fileName(j, i)+".new"); err != nil {
			return 0, err
		}
	}
	return per(n, start), nil
}

func negativeStat(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	if err := makeFiles(j, 100, false); err != nil {
		return 0, err
	}
	n := j.count(5000)
	for range 2 {
		if _, err := os.Lstat(filepath.Join(j.dir, "absent")); !os.IsNotExist(err) {
			return 0, fmt.Errorf("stat of an absent file: %v", err)
		}
	}
	start := time.Now()
	for range n {
		if _, err := os.Lstat(filepath.Join(j.dir, "absent")); !os.IsNotExist(err) {
			return 0, fmt.Errorf("stat of an absent file: %v", err)
		}
	}
	return per(n, start), nil
}

func copyTree(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	if err := unpack(j); err != nil {
		return 0, err
	}
	to := j.dir + ".copy"
	defer os.RemoveAll(to)
	return timed(false, func() error { return command("cp", "-r", j.dir, to) })
}

func gitStatus(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	if err := command("git", "clone", "-q", "--no-local", j.src.repo, j.dir); err != nil {
		return 0, err
	}
	return timed(true, func() error { return command("git", "-C", j.dir, "status", "--porcelain") })
}

func grepTree(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	if err := unpack(j); err != nil {
		return 0, err
	}
	return timed(true, func() error {
		out, err := exec.Command("grep", "-r", "no such text anywhere in here", j.dir).CombinedOutput()
		if e, ok := err.(*exec.ExitError); ok && e.ExitCode() == 1 {
			return nil // found nothing
		}
		return fmt.Errorf("grep: %v: %s", err, out)
	})
}

func findTree(j job) (float64, error) {
	defer os.RemoveAll(j.dir)
	if err := unpack(j); err != nil {
		return 0, err
	}
	return timed(true, func() error { return command("find", j.dir, "-newermt", "2100-01-01") })
}

func sqlite(j job) (float64, error) {
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	var script strings.Builder
	script.WriteString("PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; CREATE TABLE t(a INTEGER, b TEXT);\n")
	n := j.count(1000)
	for i := range n {
		fmt.Fprintf(&script, "INSERT INTO t VALUES(%d, 'some text that is not long');\n", i)
	}
	fmt.Fprintf(&script, "SELECT count(*) FROM t;\n")
	start := time.Now()
	cmd := exec.Command("sqlite3", filepath.Join(j.dir, "db"))
	cmd.Stdin = strings.NewReader(script.String())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), fmt.Sprint(n)) {
		return 0, fmt.Errorf("sqlite3: %v: %s", err, out)
	}
	return time.Since(start).Seconds() * 1000 / float64(n), nil
}

// npmCI installs the project named by --npm from npm's own cache: a directory
// with package.json and package-lock.json whose packages were fetched before.
func npmCI(j job) (float64, error) {
	if j.npm == "" {
		return 0, errSkip
	}
	if err := os.Mkdir(j.dir, 0o755); err != nil {
		return 0, err
	}
	defer os.RemoveAll(j.dir)
	for _, name := range []string{"package.json", "package-lock.json"} {
		if err := command("cp", filepath.Join(j.npm, name), j.dir); err != nil {
			return 0, err
		}
	}
	return timed(false, func() error {
		return command("npm", "ci", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--silent", "--prefix", j.dir)
	})
}
