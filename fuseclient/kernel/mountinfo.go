package kernel

import (
	"bufio"
	"bytes"
	"os"
	"strings"

	"agentdrive/internal/errs"
)

// mountEntry is a line of /proc/self/mountinfo.
type mountEntry struct {
	dev    string // "major:minor"
	dir    string
	fsType string
}

// mountTable reads the mounts of this process's namespace, in order: of
// several on one directory the last is on top.
func mountTable() ([]mountEntry, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, errs.E("kernel.mountinfo", errs.IO, "", err)
	}
	return parseMountinfo(b), nil
}

// parseMountinfo reads lines like
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
//
// and skips what does not look so.
func parseMountinfo(b []byte) []mountEntry {
	var table []mountEntry
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		left, right, ok := strings.Cut(s.Text(), " - ")
		f, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(r) < 1 {
			continue
		}
		table = append(table, mountEntry{dev: f[2], dir: unescape(f[4]), fsType: r[0]})
	}
	return table
}

// unescape undoes the octal escapes of blanks and backslashes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var out []byte
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1:i+4]) {
			out = append(out, (s[i+1]-'0')<<6|(s[i+2]-'0')<<3|(s[i+3]-'0'))
			i += 3
			continue
		}
		out = append(out, s[i])
	}
	return string(out)
}

func octal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '7' {
			return false
		}
	}
	return true
}

// topMount returns what is mounted on dir, or false.
func topMount(dir string) (mountEntry, bool, error) {
	table, err := mountTable()
	if err != nil {
		return mountEntry{}, false, err
	}
	for i := len(table) - 1; i >= 0; i-- {
		if table[i].dir == dir {
			return table[i], true, nil
		}
	}
	return mountEntry{}, false, nil
}

// findMount returns the device number of the FUSE mount on dir.
func findMount(dir string) (string, error) {
	e, ok, err := topMount(dir)
	if err != nil {
		return "", err
	}
	if !ok || !strings.HasPrefix(e.fsType, "fuse") {
		return "", errs.E("kernel.mount", errs.IO, dir+" was unmounted or covered at once", nil)
	}
	return e.dev, nil
}
