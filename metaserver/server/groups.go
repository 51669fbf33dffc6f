package server

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"agentdrive/internal/errs"
)

// groupDir is the directory of a group inside the server's.
func groupDir(id uint32) string { return fmt.Sprintf("group-%d", id) }

// checkGroups refuses a directory that was formed with another number of
// groups: fewer would leave drives without a server, more would give drives to
// groups that the rest of the cluster does not have.
func checkGroups(dir string, want uint32) error {
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return errs.E("metaserver.open", errs.IO, dir, err)
	}
	have, highest := false, uint64(0)
	for _, e := range entries {
		if n, ok := strings.CutPrefix(e.Name(), "group-"); ok {
			if id, err := strconv.ParseUint(n, 10, 32); err == nil {
				have, highest = true, max(highest, id)
			}
		}
	}
	if have && highest != uint64(want) {
		return errs.E("metaserver.open", errs.Refused, fmt.Sprintf("%s was formed with %d drive groups, not %d", dir, highest, want), nil).
			WithHint(fmt.Sprintf("start it with --groups %d", highest))
	}
	return nil
}
