package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"agentdrive/internal/errs"
	"agentdrive/replication/store"
)

// format is the version of what a metadata server keeps in its directory: the
// log's entries and the records of packages state and tree. Format 1 had no
// file that says so; it was never released and is not read.
const format = 2

// formatFile names the file with the number of the format.
const formatFile = "FORMAT"

// checkFormat refuses a directory that another version of this program wrote,
// before anything in it is read, and marks an empty one. errs.Version,
// errs.Corrupt, errs.IO.
func checkFormat(dir string) error {
	name := filepath.Join(dir, formatFile)
	b, err := os.ReadFile(name)
	switch {
	case os.IsNotExist(err):
		return markFormat(dir, name)
	case err != nil:
		return errs.E("metaserver.open", errs.IO, name, err)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return errs.E("metaserver.open", errs.Corrupt, fmt.Sprintf("%s does not hold a number", name), nil)
	}
	if n != format {
		return wrongFormat(dir, n)
	}
	return nil
}

func wrongFormat(dir string, n uint64) error {
	hint := "use the version of this program that wrote it, or an empty --data directory"
	if n > format {
		hint = "upgrade this program to the version that wrote it"
	}
	return errs.E("metaserver.open", errs.Version, fmt.Sprintf("%s is of format %d, this program reads format %d", dir, n, format), nil).WithHint(hint)
}

// markFormat writes the file into a directory without groups.
func markFormat(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return errs.E("metaserver.open", errs.IO, dir, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errs.E("metaserver.open", errs.IO, dir, err)
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), groupPrefix) {
			return wrongFormat(dir, 1)
		}
	}
	return store.WriteFileAtomic(name, []byte(strconv.Itoa(format)+"\n"))
}
