// Package doctor examines a host: what Agent Drive needs, what it could use,
// and what to do about what is missing.
package doctor

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// States of a Finding.
const (
	OK      = "ok"
	Note    = "note"    // worth knowing
	Warn    = "warning" // works, but not as well as it could
	Missing = "MISSING" // required
)

// Finding is one thing that was looked at.
type Finding struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Detail string `json:"detail"`
	Todo   string `json:"todo,omitempty"` // what to do about it
}

// Feature is a kernel feature that Agent Drive uses where it is there.
type Feature struct {
	Name  string `json:"name"`
	Since string `json:"since"` // first kernel version
	For   string `json:"for"`   // what it serves
	Here  bool   `json:"here"`
}

// Report is the result of an examination.
type Report struct {
	Kernel   string    `json:"kernel"`
	Findings []Finding `json:"findings"`
	Features []Feature `json:"features"`
}

// Missing counts the findings in state Missing.
func (r Report) Missing() int {
	n := 0
	for _, f := range r.Findings {
		if f.State == Missing {
			n++
		}
	}
	return n
}

// Host is what Examine looks at; tests supply their own.
type Host struct {
	Release  string                                  // kernel release, like "6.1.0-30-amd64"
	Root     bool                                    // running as root
	Sys      fs.FS                                   // root of the filesystem, for /proc and /sys
	OpenFUSE func() error                            // opens /dev/fuse and closes it
	Find     func(name string) (path string, _ bool) // looks for a program
	Free     func() (free, total uint64, _ error)    // bytes where the data is
	UserConf string                                  // content of /etc/fuse.conf
}

// ThisHost describes the machine we run on; data is the data directory, which
// need not exist.
func ThisHost(data string) Host {
	var uts unix.Utsname
	release := "unknown"
	if unix.Uname(&uts) == nil {
		release = unix.ByteSliceToString(uts.Release[:])
	}
	conf, err := os.ReadFile("/etc/fuse.conf")
	if err != nil {
		conf = nil // no file: the defaults
	}
	return Host{
		Release: release, Root: os.Geteuid() == 0, Sys: os.DirFS("/"), UserConf: string(conf),
		OpenFUSE: func() error {
			f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
			if err != nil {
				return err
			}
			return f.Close()
		},
		Find: func(name string) (string, bool) {
			p, err := exec.LookPath(name)
			return p, err == nil
		},
		Free: func() (uint64, uint64, error) { return freeAt(data) },
	}
}

// freeAt measures the filesystem of dir, or of its nearest existing parent.
func freeAt(dir string) (free, total uint64, err error) {
	for {
		var st unix.Statfs_t
		if err = unix.Statfs(dir, &st); err == nil {
			return st.Bavail * uint64(st.Bsize), st.Blocks * uint64(st.Bsize), nil
		}
		if err != unix.ENOENT || dir == filepath.Dir(dir) {
			return 0, 0, err
		}
		dir = filepath.Dir(dir)
	}
}

const (
	minKernelMajor, minKernelMinor = 5, 10    // oldest kernel we know to mount correctly
	wantFree                       = 10 << 30 // bytes
	needFree                       = 1 << 30  // bytes; chunk servers keep a reserve
	wantPages                      = 256      // of 4 KiB: requests of 1 MiB
)

// Examine looks at a host.
func Examine(h Host) Report {
	major, minor := version(h.Release)
	r := Report{Kernel: h.Release}
	add := func(name, state, detail, todo string) {
		if state == OK {
			todo = ""
		}
		r.Findings = append(r.Findings, Finding{Name: name, State: state, Detail: detail, Todo: todo})
	}
	state := OK
	if !atLeast(major, minor, minKernelMajor, minKernelMinor) {
		state = Missing
	}
	add("kernel", state, h.Release, fmt.Sprintf("upgrade to Linux %d.%d or newer", minKernelMajor, minKernelMinor))

	if err := h.OpenFUSE(); err == nil {
		add("/dev/fuse", OK, "usable", "")
	} else {
		add("/dev/fuse", Missing, err.Error(), "load the module (modprobe fuse), or give the container the device: --device /dev/fuse --cap-add SYS_ADMIN")
	}
	h.fusermount(add)
	h.pages(add)
	h.disk(add)
	r.Features = h.features(major, minor)
	return r
}

type adder func(name, state, detail, todo string)

func (h Host) fusermount(add adder) {
	path, found := h.Find("fusermount3")
	switch {
	case h.Root:
		add("user", OK, "root: mounts directly", "")
	case found:
		add("user", OK, "not root: mounts by fusermount3", "")
		if !regexp.MustCompile(`(?m)^\s*user_allow_other`).MatchString(h.UserConf) {
			add("allow-other", Note, "/etc/fuse.conf does not allow --allow-other to users", "add the line user_allow_other to /etc/fuse.conf")
		}
	}
	switch {
	case found:
		add("fusermount3", OK, path, "")
	case h.Root:
		add("fusermount3", Note, "not found; root can do without", "apt-get install fuse3")
	default:
		add("fusermount3", Missing, "not found, and this is not root", "apt-get install fuse3")
	}
}

func (h Host) pages(add adder) {
	const name = "proc/sys/fs/fuse/max_pages_limit"
	b, err := fs.ReadFile(h.Sys, name)
	if err != nil {
		add("request size", Note, "/"+name+" is not there (kernel before 6.12): requests of 1 MiB", "")
		return
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		add("request size", Warn, fmt.Sprintf("/%s holds %q", name, b), "")
		return
	}
	state := OK
	if n < wantPages {
		state = Warn
	}
	add("request size", state, fmt.Sprintf("max_pages_limit %d: requests up to %d KiB", n, n*4),
		fmt.Sprintf("sysctl fs.fuse.max_pages_limit=%d", wantPages))
}

func (h Host) disk(add adder) {
	free, total, err := h.Free()
	if err != nil {
		add("free disk", Warn, err.Error(), "")
		return
	}
	state := OK
	switch {
	case free < needFree:
		state = Missing
	case free < wantFree:
		state = Warn
	}
	add("free disk", state, fmt.Sprintf("%d MiB of %d MiB", free>>20, total>>20), "free some space, or choose another disk with --data")
}

// features is the kernel table of the README, for this host.
func (h Host) features(major, minor int) []Feature {
	table := []Feature{
		{Name: "RESEND", Since: "6.9", For: "a mount outlives its daemon"},
		{Name: "EROFS from files", Since: "6.12", For: "images as read-only layers"},
		{Name: "FUSE idmapping", Since: "6.12", For: "mounts in user namespaces"},
		{Name: "FUSE over io_uring", Since: "6.14", For: "faster metadata; needs enable_uring"},
		{Name: "INC_EPOCH", Since: "6.16", For: "cached names dropped at once"},
	}
	for i := range table {
		a, b := version(table[i].Since)
		table[i].Here = atLeast(major, minor, a, b)
	}
	uring := &table[3]
	if b, err := fs.ReadFile(h.Sys, "sys/module/fuse/parameters/enable_uring"); uring.Here && (err != nil || !strings.HasPrefix(string(b), "Y")) {
		uring.Here = false
		uring.For += ": echo Y > /sys/module/fuse/parameters/enable_uring"
	}
	return table
}

// version reads "6.1.0-30-amd64" as 6, 1; what is no number is 0.
func version(release string) (major, minor int) {
	parts := strings.FieldsFunc(release, func(r rune) bool { return r < '0' || r > '9' })
	if len(parts) > 0 {
		major, _ = strconv.Atoi(parts[0])
	}
	if len(parts) > 1 {
		minor, _ = strconv.Atoi(parts[1])
	}
	return major, minor
}

func atLeast(major, minor, wantMajor, wantMinor int) bool {
	return major > wantMajor || major == wantMajor && minor >= wantMinor
}
