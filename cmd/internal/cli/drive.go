package cli

import (
	"context"
	"fmt"
	"text/tabwriter"

	"agentdrive/internal/errs"
)

func runDriveCreate(ctx context.Context, a *App, in *Input) error {
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	return a.withCluster(in, func(c Cluster) error {
		d, err := c.CreateDrive(ctx, in.Args[0])
		created := err == nil
		if errs.Is(err, errs.Exist) && in.bool("if-not-exists") {
			d, err = c.Drive(ctx, in.Args[0])
		}
		if err != nil {
			return err
		}
		text := "drive %s created"
		if !created {
			text = "drive %s exists already"
		}
		return a.result(struct {
			Drive
			Created bool `json:"created"`
		}{d, created}, text, d.Name)
	})
}

func runDriveList(ctx context.Context, a *App, in *Input) error {
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	return a.withCluster(in, func(c Cluster) error {
		drives, err := c.Drives(ctx)
		if err != nil {
			return err
		}
		if a.json {
			return a.result(map[string][]Drive{"drives": list(drives)}, "")
		}
		return a.printDrives(drives)
	})
}

func runDriveGet(ctx context.Context, a *App, in *Input) error {
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	return a.withCluster(in, func(c Cluster) error {
		d, err := c.Drive(ctx, in.Args[0])
		if err != nil {
			return err
		}
		if a.json {
			return a.result(d, "")
		}
		return a.printDrives([]Drive{d})
	})
}

func runDriveSet(ctx context.Context, a *App, in *Input) error {
	q := Quota{MaxBytes: in.limit("max-bytes"), MaxFiles: in.limit("max-files")}
	if q == (Quota{}) {
		return usage("`agentdrive drive set` needs --max-bytes or --max-files").WithHint(seeHelp(find("drive set")))
	}
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	return a.withCluster(in, func(c Cluster) error {
		d, err := c.SetQuota(ctx, in.Args[0], q)
		if err != nil {
			return err
		}
		return a.result(d, "drive %s: %s in %s files", d.Name, outOf(d.Bytes, d.MaxBytes, size), outOf(d.Files, d.MaxFiles, count))
	})
}

func runDriveDelete(ctx context.Context, a *App, in *Input) error {
	ctx, cancel := context.WithTimeout(ctx, in.duration("timeout"))
	defer cancel()
	return a.withCluster(in, func(c Cluster) error {
		if err := c.DeleteDrive(ctx, in.Args[0], in.bool("force")); err != nil {
			return err
		}
		return a.result(map[string]string{"deleted": in.Args[0]}, "drive %s deleted", in.Args[0])
	})
}

func (a *App) printDrives(drives []Drive) error {
	w := tabwriter.NewWriter(a.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "DRIVE\tFILES\tSIZE\tGROUP")
	for _, d := range drives {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\n", d.Name, outOf(d.Files, d.MaxFiles, count), outOf(d.Bytes, d.MaxBytes, size), d.Group)
	}
	if err := w.Flush(); err != nil {
		return errs.E("", errs.IO, "standard output", err)
	}
	return nil
}

// list makes an empty list of an absent one: JSON shows [] rather than null.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

func count(n uint64) string { return fmt.Sprint(n) }

// outOf shows a use and its limit, if there is one.
func outOf(n, limit uint64, show func(uint64) string) string {
	if limit == 0 {
		return show(n)
	}
	return show(n) + " of " + show(limit)
}

// size shows bytes for people.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[i])
}
