// Command handover measures two mounts of one drive against each other: how
// long a call takes when the other mount has just used the same file or
// directory, and how fast both create, rename and unlink in one directory.
//
//	go run ./bench/handover [flags] DIR_A DIR_B
//
// Every value that one mount must see of the other is compared; what is stale
// is counted and makes the command fail. Directories are left as they were.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// config of a run.
type config struct {
	rounds  int
	minutes float64
	workers int
	only    string
}

func main() {
	var c config
	flag.IntVar(&c.rounds, "rounds", 300, "rounds of each hand-over")
	flag.Float64Var(&c.minutes, "minutes", 0.5, "length of the work in one directory; a fifth of it is one mount alone")
	flag.IntVar(&c.workers, "workers", 1, "threads of each mount in the work in one directory")
	flag.StringVar(&c.only, "only", "", "hand (hand-over) or crowd (one directory) alone")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: handover [flags] DIR_A DIR_B")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 2 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(c, flag.Arg(0), flag.Arg(1)); err != nil {
		fmt.Fprintln(os.Stderr, "handover:", err)
		os.Exit(1)
	}
}

func run(c config, a, b string) (err error) {
	name := fmt.Sprintf("handover-%d", os.Getpid())
	a, b = filepath.Join(a, name), filepath.Join(b, name)
	if err := os.Mkdir(a, 0o755); err != nil {
		return err
	}
	defer func() {
		if rerr := os.RemoveAll(a); err == nil {
			err = rerr
		}
	}()
	if _, err := os.Stat(b); err != nil {
		return fmt.Errorf("the two do not show the same drive: %w", err)
	}
	stale := 0
	if c.only != "crowd" {
		if stale, err = handOver(c, a, b); err != nil {
			return err
		}
	}
	if c.only != "hand" {
		if err := crowd(c, a, b); err != nil {
			return err
		}
	}
	if stale > 0 {
		return fmt.Errorf("%d stale results", stale)
	}
	return nil
}

// spread is a set of durations.
type spread []time.Duration

// at gives a quantile, q from 0 to 1, in ms.
func (s spread) at(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	slices.Sort(s)
	return float64(s[int(q*float64(len(s)-1))]) / 1e6
}
