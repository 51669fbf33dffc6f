package posix

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// user is whom a child works as.
type user struct {
	uid, gid uint32
	groups   []uint32
}

// runAs starts this binary as another user in dir, to run a script of calls,
// one a line. It gives the script with what came of each line.
func runAs(t *testing.T, u user, dir, script string) string {
	t.Helper()
	cmd := scripted(t, u, dir, script)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child of user %d: %v\n%s", u.uid, err, out)
	}
	return string(out)
}

// scripted is the command of runAs.
func scripted(t *testing.T, u user, dir, script string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/fd/3") // wherever it lies, users may not reach it
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	cmd.ExtraFiles = []*os.File{f}
	cmd.Dir = dir
	cmd.Env = []string{roleEnv + "=child"}
	cmd.Stdin = strings.NewReader(script)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: u.uid, Gid: u.gid, Groups: u.groups}}
	return cmd
}

// child runs the script on its standard input.
func child() int {
	unix.Umask(0o022)
	s := bufio.NewScanner(os.Stdin)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) == 0 {
			continue
		}
		verb, ok := verbs[f[0]]
		if !ok {
			fmt.Fprintln(os.Stderr, "no verb", f[0])
			return 2
		}
		out, err := verb(f[1:])
		if err != nil {
			out = err.Error()
		}
		fmt.Printf("%s: %s\n", s.Text(), out)
	}
	if err := s.Err(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	return 0
}

// verbs are the calls of a script. A verb panics on a line that lacks words.
var verbs = map[string]func(w []string) (string, error){
	"create": func(w []string) (string, error) {
		return "", open(w[1], unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY, octal(w[0]), nil)
	},
	"write": func(w []string) (string, error) { return "", open(w[0], unix.O_WRONLY, 0, []byte("text")) },
	"append": func(w []string) (string, error) {
		return "", open(w[0], unix.O_WRONLY|unix.O_APPEND, 0, []byte("more"))
	},
	"rewrite": func(w []string) (string, error) {
		return "", open(w[0], unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, 0o666, []byte("new"))
	},
	"mkdir":   func(w []string) (string, error) { return "", unix.Mkdir(w[1], octal(w[0])) },
	"fifo":    func(w []string) (string, error) { return "", unix.Mknod(w[1], unix.S_IFIFO|octal(w[0]), 0) },
	"device":  func(w []string) (string, error) { return "", unix.Mknod(w[0], unix.S_IFCHR|0o600, 0x103) },
	"symlink": func(w []string) (string, error) { return "", unix.Symlink(w[0], w[1]) },
	"link":    func(w []string) (string, error) { return "", unix.Link(w[0], w[1]) },
	"unlink":  func(w []string) (string, error) { return "", unix.Unlink(w[0]) },
	"rmdir":   func(w []string) (string, error) { return "", unix.Rmdir(w[0]) },
	"rename":  func(w []string) (string, error) { return "", unix.Rename(w[0], w[1]) },
	"swap": func(w []string) (string, error) {
		return "", unix.Renameat2(unix.AT_FDCWD, w[0], unix.AT_FDCWD, w[1], unix.RENAME_EXCHANGE)
	},
	"chmod":    func(w []string) (string, error) { return "", unix.Chmod(w[1], octal(w[0])) },
	"chown":    func(w []string) (string, error) { return "", unix.Lchown(w[2], decimal(w[0]), decimal(w[1])) },
	"truncate": func(w []string) (string, error) { return "", unix.Truncate(w[0], 2) },
	"touch":    func(w []string) (string, error) { return "", unix.UtimesNanoAt(unix.AT_FDCWD, w[0], nil, 0) },
	"settime": func(w []string) (string, error) {
		return "", unix.UtimesNanoAt(unix.AT_FDCWD, w[0], []unix.Timespec{{Sec: 5}, {Sec: 6}}, 0)
	},
	"access":   func(w []string) (string, error) { return "", unix.Access(w[1], octal(w[0])) },
	"setxattr": func(w []string) (string, error) { return "", unix.Lsetxattr(w[1], w[0], []byte("v"), 0) },
	"rmxattr":  func(w []string) (string, error) { return "", unix.Lremovexattr(w[1], w[0]) },
	"getxattr": func(w []string) (string, error) {
		buf := make([]byte, 100)
		n, err := unix.Lgetxattr(w[1], w[0], buf)
		return string(buf[:max(n, 0)]), err
	},
	"read": func(w []string) (string, error) {
		b, err := os.ReadFile(w[0])
		return strconv.Quote(string(b)), errno(err)
	},
	"list": func(w []string) (string, error) {
		list, err := os.ReadDir(w[0])
		var names []string
		for _, e := range list {
			names = append(names, e.Name())
		}
		return strings.Join(names, " "), errno(err)
	},
	"stat": func(w []string) (string, error) {
		var st unix.Stat_t
		err := unix.Lstat(w[0], &st)
		return fmt.Sprintf("mode %o owner %d group %d links %d", st.Mode, st.Uid, st.Gid, st.Nlink), err
	},
}

// open opens a file and perhaps writes to it.
func open(path string, flags int, mode uint32, data []byte) error {
	fd, err := unix.Open(path, flags, mode)
	if err != nil {
		return err
	}
	if data != nil {
		_, err = unix.Write(fd, data)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// errno strips the path, which differs.
func errno(err error) error {
	if p, ok := err.(*os.PathError); ok {
		return p.Err
	}
	return err
}

func octal(s string) uint32 {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		panic(err) // a mistake in a script
	}
	return uint32(n)
}

func decimal(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err) // a mistake in a script
	}
	return n
}
