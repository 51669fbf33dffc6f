package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"agentdrive/internal/errs"
)

// followEvery is how often a followed log is looked at.
const followEvery = 200 * time.Millisecond

// LogFiles lists the current log files of d whose name is name or starts with
// "name-"; an empty name lists all. errs.NotExist: there is none.
func LogFiles(d Dir, name string) ([]string, error) {
	all, err := filepath.Glob(d.LogOf("*"))
	if err != nil {
		return nil, errs.E("logs", errs.IO, "", err)
	}
	var out, names []string
	for _, path := range all {
		base := strings.TrimSuffix(filepath.Base(path), ".log")
		names = append(names, base)
		if name == "" || base == name || strings.HasPrefix(base, name+"-") {
			out = append(out, path)
		}
	}
	if len(out) == 0 {
		e := errs.E("logs", errs.NotExist, fmt.Sprintf("no log of %q in %s", name, d.Logs()), nil)
		if len(names) > 0 {
			e = e.WithHint("there are: " + strings.Join(names, ", "))
		}
		return nil, e
	}
	sort.Strings(out)
	return out, nil
}

// LogReader prints the ends of log files and what is appended to them.
type LogReader struct {
	Lines int                           // of each file, from its end
	Emit  func(file, line string) error // called in order for each line
}

// Print emits the last lines of each file. With follow it goes on with what
// is appended, across rotations, until ctx ends, which is no error.
func (r LogReader) Print(ctx context.Context, files []string, follow bool) error {
	tails := make([]*logTail, len(files))
	for i, path := range files {
		t := &logTail{path: path}
		defer t.close()
		tails[i] = t
		if err := t.open(); err != nil {
			return err
		}
		lines, err := t.read()
		if err != nil {
			return err
		}
		for _, line := range lines[max(0, len(lines)-r.Lines):] {
			if err := r.Emit(path, line); err != nil {
				return err
			}
		}
	}
	if !follow {
		return nil
	}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, t := range tails {
			lines, err := t.more()
			if err != nil {
				return err
			}
			for _, line := range lines {
				if err := r.Emit(t.path, line); err != nil {
					return err
				}
			}
		}
	}
}

// logTail reads one log file from a remembered place.
type logTail struct {
	path    string
	f       *os.File
	partial []byte // the beginning of an unfinished line
}

func (t *logTail) open() error {
	f, err := os.Open(t.path)
	if err != nil {
		return errs.E("logs", errs.IO, "", err)
	}
	t.f = f
	return nil
}

func (t *logTail) close() {
	if t.f != nil {
		t.f.Close()
		t.f = nil
	}
}

// read returns the complete lines from the remembered place on.
func (t *logTail) read() ([]string, error) {
	b, err := io.ReadAll(t.f)
	if err != nil {
		return nil, errs.E("logs", errs.IO, "", err)
	}
	b = append(t.partial, b...)
	end := bytes.LastIndexByte(b, '\n') + 1
	t.partial = bytes.Clone(b[end:])
	if end == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(b[:end]), "\n"), "\n"), nil
}

// more is read that moves on to the new file after a rotation. What a second
// rotation within one followEvery took away is not shown.
func (t *logTail) more() ([]string, error) {
	lines, err := t.read()
	if err != nil {
		return nil, err
	}
	now, err := os.Stat(t.path)
	if errors.Is(err, os.ErrNotExist) {
		return lines, nil // between the two renames of a rotation
	}
	if err != nil {
		return nil, errs.E("logs", errs.IO, "", err)
	}
	mine, err := t.f.Stat()
	if err != nil {
		return nil, errs.E("logs", errs.IO, "", err)
	}
	if os.SameFile(now, mine) {
		return lines, nil
	}
	last, err := t.read() // written between the first read and the rotation
	if err != nil {
		return nil, err
	}
	t.close()
	if err := t.open(); err != nil {
		return nil, err
	}
	rest, err := t.read()
	return append(append(lines, last...), rest...), err
}
