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
	flag.Parse()
	if err := run(*servers, *drive, *files, *perDir, *workers); err != nil {
		fmt.Fprintln(os.Stderr, "load:", err)
		os.Exit(1)
	}
}

func run(servers, drive string, files, perDir, workers int) error {
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
	if err := fill(c, files, perDir, workers); err != nil {
		return err
	}
	d := time.Since(start)
	fmt.Printf("%d files in %.1f s, %.0f/s\n", files, d.Seconds(), float64(files)/d.Seconds())
	return c.Close(ctx)
}

// fill makes directories one after the other and their files in parallel.
func fill(c *fuseclient.Client, files, perDir, workers int) error {
	type job struct {
		dir  meta.Ino
		name string
	}
	jobs := make(chan job, workers)
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range jobs {
				ino, err := create(c, j.dir, j.name, meta.ModeRegular|0o644)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					continue
				}
				c.Forget(ino, 1)
			}
		}()
	}
	var dir meta.Ino
	for i := 0; i < files && failed.Load() == nil; i++ {
		if i%perDir == 0 {
			ino, err := create(c, c.Root().Ino, fmt.Sprintf("d%05d", i/perDir), meta.ModeDir|0o755)
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
	res, err := c.Do(nil, &meta.Make{Parent: dir, Name: name, Mode: mode, Excl: true})
	if err != nil {
		return 0, err
	}
	return res.(*meta.EntryResult).Attr.Ino, nil
}
