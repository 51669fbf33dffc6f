// Package procfs reads what the kernel tells about processes and mounts.
package procfs

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"time"

	"agentdrive/internal/errs"
)

// Mount is one line of /proc/self/mountinfo.
type Mount struct {
	Dir    string // mount point, as seen by this process
	Type   string // filesystem type, like "fuse.agentdrive"
	Source string
}

// Mounts lists the mounts of this process's namespace in mount order.
func Mounts() ([]Mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, errs.E("mountinfo", errs.IO, "", err)
	}
	return ParseMountinfo(string(b)), nil
}

// ParseMountinfo reads the text of a mountinfo file (proc_pid_mountinfo(5)).
// Lines it does not understand are left out.
func ParseMountinfo(text string) []Mount {
	var out []Mount
	for _, line := range strings.Split(text, "\n") {
		before, after, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 2 {
			continue
		}
		out = append(out, Mount{Dir: unescape(left[4]), Type: right[0], Source: unescape(right[1])})
	}
	return out
}

// unescape undoes the kernel's octal escapes of space, tab, newline and
// backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// MountAt returns the topmost mount on exactly dir.
func MountAt(dir string) (Mount, bool, error) {
	all, err := Mounts()
	if err != nil {
		return Mount{}, false, err
	}
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].Dir == dir {
			return all[i], true, nil
		}
	}
	return Mount{}, false, nil
}

// Runs tells whether the process pid exists and has not ended: one that waits
// for its parent to notice (a zombie) does not run.
func Runs(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	// The state follows the name, which stands in parentheses and may hold any.
	i := strings.LastIndex(string(b), ") ")
	return i >= 0 && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

// User is a process that uses a file or directory.
type User struct {
	Pid  int
	Name string
}

// String is "name (pid)".
func (u User) String() string { return fmt.Sprintf("%s (%d)", u.Name, u.Pid) }

// scanLimit bounds Users. Reading about a process waits for that process's
// address space, which a page fault may hold that waits for a dead server.
const scanLimit = 3 * time.Second

// Users lists the processes that have dir, or something below it, open,
// mapped, or as working or root directory, in order of pid. It reads links
// only, never dir itself, so it works on a dead mount. Processes that this
// user may not look into, that end meanwhile, or that do not let themselves
// be looked at within scanLimit are left out.
func Users(dir string) []User {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	looks := make(chan *User, len(entries)) // nil: not a user; never blocks a sender
	waiting := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		waiting++
		go func() { looks <- look(pid, dir) }()
	}
	limit := time.NewTimer(scanLimit)
	defer limit.Stop()
	var out []User
	for timeUp := false; waiting > 0 && !timeUp; {
		select {
		case u := <-looks:
			waiting--
			if u != nil {
				out = append(out, *u)
			}
		case <-limit.C:
			timeUp = true // what still looks ends with the process it looks at
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Pid < out[j].Pid })
	return out
}

// look returns the process if it uses dir.
func look(pid int, dir string) *User {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	if !uses(proc, dir) {
		return nil
	}
	name, _ := os.ReadFile(filepath.Join(proc, "comm")) // it may end here: then without a name
	return &User{Pid: pid, Name: strings.TrimSpace(string(name))}
}

func uses(proc, dir string) bool {
	below := func(p string) bool { return p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") }
	for _, name := range []string{"cwd", "root", "exe"} {
		if p, err := os.Readlink(filepath.Join(proc, name)); err == nil && below(p) {
			return true
		}
	}
	fds, _ := os.ReadDir(filepath.Join(proc, "fd"))
	for _, fd := range fds {
		if p, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && below(p) {
			return true
		}
	}
	maps, _ := os.ReadFile(filepath.Join(proc, "maps"))
	for _, line := range strings.Split(string(maps), "\n") {
		if i := strings.IndexByte(line, '/'); i >= 0 && below(line[i:]) {
			return true
		}
	}
	return false
}
