package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"agentdrive/internal/errs"
)

// groupPrefix begins the names of the groups' directories.
const groupPrefix = "group-"

// groupDir is the directory of a group inside the server's.
func groupDir(id uint32) string { return fmt.Sprint(groupPrefix, id) }

// checkGroups refuses a directory that holds more groups than the server was
// asked to run: their drives would have no server. Groups beyond those of the
// cluster's record are empty and do no harm; a first start that was cut short
// leaves fewer directories than groups.
func checkGroups(dir string, want uint32) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return errs.E("metaserver.open", errs.IO, dir, err)
	}
	highest := uint64(0)
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), groupPrefix); ok {
			if id, err := strconv.ParseUint(n, 10, 32); err == nil {
				highest = max(highest, id)
			}
		}
	}
	if highest > uint64(want) {
		return errs.E("metaserver.open", errs.Refused, fmt.Sprintf("%s was formed with %d drive groups, %d are asked for", dir, highest, want), nil).
			WithHint(fmt.Sprintf("start it with --groups %d", highest))
	}
	return nil
}
