// Command load fills a drive with inodes through a client session, without a
// mount: for figures of memory and restart at size.
//
//	go run ./bench/load --servers HOST:PORT,... --drive demo --files 1000000
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"agentdrive/fuseclient"
	"agentdrive/internal/rpc"
	"agentdrive/metaserver/meta"
)

func main() {
	servers := flag.String("servers", "", "metadata servers, comma-separated")
	drive := flag.String("drive", "demo", "drive to fill")
	files := flag.Int("files", 1_000_000, "files to create")
	perDir := flag.Int("per-dir", 10_000, "files in each directory")
	workers := flag.Int("workers", 256, "operations in flight")
	keep := flag.Bool("keep", false, "keep every inode referenced, as a kernel would that has them all cached, and print this process's memory")
	flag.Parse()
	if err := run(*servers, *drive, *files, shape{*perDir, *workers, *keep}); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

// shape says how the files are made.
type shape struct {
	perDir, workers int
	keep            bool // their references
}

func run(servers, drive string, files int, sh shape) error {
	ctx := context.Background()
	c, err := fuseclient.Open(ctx, fuseclient.Config{
		Servers: strings.Split(servers, ","), Network: rpc.TCP{}, Drive: drive,
		Path: fmt.Sprintf("/load-%d", os.Getpid()), CreatePath: true, Dir: "(load)",
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	start := time.Now()
	if err := fill(c, files, sh); err != nil {
		return err
	}
	d := time.Since(start)
	fmt.Printf("%d files in %.1f s, %.0f/s\n", files, d.Seconds(), float64(files)/d.Seconds())
	if sh.keep {
		runtime.GC()
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			if strings.HasPrefix(line, "VmRSS") {
				fmt.Printf("with %d inodes referenced: %s", files, line)
			}
		}
	}
	return c.Close(ctx)
}

// fill makes directories one after the other and their files in parallel.
func fill(c *fuseclient.Client, files int, sh shape) error {
	type job struct {
		dir  meta.Ino
		name string
	}
	jobs := make(chan job, sh.workers)
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range sh.workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range jobs {
				ino, err := create(c, j.dir, j.name, meta.ModeRegular|0o644)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					continue
				}
				if !sh.keep {
					c.Forget(ino, 1)
				}
			}
		}()
	}
	var dir meta.Ino
	for i := 0; i < files && failed.Load() == nil; i++ {
		if i%sh.perDir == 0 {
			ino, err := create(c, c.Root().Ino, fmt.Sprintf("d%05d", i/sh.perDir), meta.ModeDir|0o755)
			if err != nil {
				failed.CompareAndSwap(nil, &err)
				break
			}
			dir = ino
			fmt.Fprintf(os.Stderr, "\r%d", i)
		}
		jobs <- job{dir, fmt.Sprintf("f%07d", i)}
	}
	close(jobs)
	wg.Wait()
	fmt.Fprint(os.Stderr, "\r")
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

func create(c *fuseclient.Client, dir meta.Ino, name string, mode uint32) (meta.Ino, error) {
	res, err := c.Exec(&meta.Make{Parent: dir, Name: name, Mode: mode, Excl: true})
	if err != nil {
		return 0, err
	}
	return res.(*meta.EntryResult).Attr.Ino, nil
}
