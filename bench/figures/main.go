// Command figures measures what a directory can do: the work of agents and of
// databases, beside a reference directory in the same run.
//
//	go run ./bench/figures drive=./mnt/a ext4=:image:
//
// Each argument is NAME=DIR; :image: stands for a fresh journaled ext4 on a
// loop device (root only), :limit: for a filesystem in memory behind the same
// FUSE transport (bench/limit). The last one is the reference of the ratios. The
// workloads run in turn on all directories, several times; the table shows
// medians. Directories are left as they were.
package main

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// place is a directory under measurement.
type place struct {
	name, dir string
}

// config of a run.
type config struct {
	runs  int
	scale float64
	tree  string // source of untar and clone
	only  string
	npm   string
}

func main() {
	var c config
	flag.IntVar(&c.runs, "runs", 3, "runs of each workload; the median counts")
	flag.Float64Var(&c.scale, "scale", 1, "factor on the number of operations")
	flag.StringVar(&c.tree, "tree", "", "directory to untar and clone; default: the Go library's net and go packages")
	flag.StringVar(&c.only, "only", "", "workloads whose name contains this")
	flag.StringVar(&c.npm, "npm", "", "project directory for npm ci (package.json, package-lock.json; packages in npm's cache); default: left out")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), "usage: figures [flags] NAME=DIR|:limit: ... REFERENCE=DIR|:image:\n")
		flag.PrintDefaults()
	}
	flag.Parse()
	if a := flag.Args(); len(a) == 2 && a[0] == "serve-limit" {
		if err := serveLimit(a[1]); err != nil {
			fmt.Fprintln(os.Stderr, "figures: limit:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(c, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "figures:", err)
		os.Exit(1)
	}
}

func run(c config, args []string) (err error) {
	if len(args) == 0 {
		flag.Usage()
		return fmt.Errorf("no directories")
	}
	tmp, err := os.MkdirTemp("", "figures")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var places []place
	for _, a := range args {
		name, dir, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("%q is not NAME=DIR", a)
		}
		if start := special[dir]; start != nil {
			var undo func() error
			if dir, undo, err = start(tmp); err != nil {
				return err
			}
			defer func() { err = cmp.Or(err, undo()) }()
		}
		if dir, err = os.MkdirTemp(dir, "figures-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		places = append(places, place{name, dir})
	}
	src, err := prepare(c, tmp)
	if err != nil {
		return err
	}
	return measure(c, src, places)
}

// special are the places that a run makes for itself.
var special = map[string]func(tmp string) (dir string, undo func() error, err error){
	":image:": image,
	":limit:": startLimit,
}

// image makes a journaled ext4 on a loop device and mounts it.
func image(tmp string) (dir string, undo func() error, err error) {
	file, dir := filepath.Join(tmp, "image"), filepath.Join(tmp, "ext4")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", nil, err
	}
	for _, cmd := range [][]string{
		{"truncate", "-s", "8G", file},
		{"mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", file},
		{"mount", "-o", "loop", file, dir},
	} {
		if out, err := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); err != nil {
			return "", nil, fmt.Errorf("%s: %w: %s", cmd[0], err, out)
		}
	}
	return dir, func() error { return exec.Command("umount", dir).Run() }, nil
}

// measure runs every workload on every place, in turn.
func measure(c config, src source, places []place) error {
	fmt.Printf("| work | unit |")
	for _, p := range places {
		fmt.Printf(" %s |", p.name)
	}
	ref := places[len(places)-1]
	for _, p := range places[:len(places)-1] {
		fmt.Printf(" %s / %s |", p.name, ref.name)
	}
	fmt.Printf("\n|---|---|%s\n", strings.Repeat("---|", 2*len(places)-1))
	for _, w := range slices.Concat(workloads, agentWork) {
		if !strings.Contains(w.name, c.only) {
			continue
		}
		results := make([][]float64, len(places))
		for r := range c.runs {
			for i, p := range places {
				v, err := w.run(job{dir: filepath.Join(p.dir, fmt.Sprintf("r%d", r)), scale: c.scale, src: src, npm: c.npm})
				if errors.Is(err, errSkip) {
					continue
				}
				if err != nil {
					return fmt.Errorf("%s on %s: %w", w.name, p.name, err)
				}
				results[i] = append(results[i], v)
			}
		}
		if len(results[0]) > 0 {
			row(w, results)
		}
	}
	return nil
}

func row(w workload, results [][]float64) {
	fmt.Printf("| %s | %s |", w.name, w.unit)
	var medians []float64
	for _, r := range results {
		slices.Sort(r)
		m := r[len(r)/2]
		medians = append(medians, m)
		fmt.Printf(" %s |", format(m))
	}
	ref := medians[len(medians)-1]
	for _, m := range medians[:len(medians)-1] {
		ratio := m / ref
		if w.smaller {
			ratio = ref / m
		}
		fmt.Printf(" %.3f |", ratio)
	}
	fmt.Println()
}

func format(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// per converts a number of things done since start into a rate.
func per(n int, start time.Time) float64 { return float64(n) / time.Since(start).Seconds() }
