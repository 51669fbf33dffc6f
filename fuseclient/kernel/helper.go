package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"agentdrive/internal/errs"
)

// The setuid program of libfuse that mounts for ordinary users. It opens the
// device, mounts it and passes the descriptor through a socket whose number
// stands in _FUSE_COMMFD.
const helperName = "fusermount3"

const fuseConf = "/etc/fuse.conf"

func helperPath(op string) (string, error) {
	p, err := exec.LookPath(helperName)
	if err != nil {
		return "", errs.E(op, errs.Permission, "mounting needs root or "+helperName, err).
			WithHint("install the package fuse3")
	}
	return p, nil
}

// mountHelper mounts through fusermount3 and returns the device's descriptor.
func mountHelper(cfg Config) (int, error) {
	const op = "kernel.mount"
	bin, err := helperPath(op)
	if err != nil {
		return -1, err
	}
	if cfg.AllowOther && os.Geteuid() != 0 {
		if err := checkAllowOther(); err != nil {
			return -1, err
		}
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, errs.E(op, errs.IO, "socket for "+helperName, err)
	}
	remote := os.NewFile(uintptr(pair[1]), "fusermount")
	cmd := exec.Command(bin, "-o", helperOptions(cfg), "--", cfg.Dir)
	cmd.Env = append(os.Environ(), "_FUSE_COMMFD=3")
	cmd.ExtraFiles = []*os.File{remote}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = errors.Join(cmd.Run(), remote.Close())
	if err != nil {
		return -1, errors.Join(errs.E(op, errs.Permission, helperText(stderr), err), unix.Close(pair[0]))
	}
	fd, err := receiveFD(pair[0])
	return fd, errors.Join(err, unix.Close(pair[0]))
}

func helperOptions(cfg Config) string {
	// A comma or backslash in the source would end the option.
	source := strings.NewReplacer(`\`, `\\`, ",", `\,`).Replace(cfg.Source)
	opts := []string{
		"fsname=" + source, "subtype=" + fsType, "nosuid", "nodev",
		"default_permissions", fmt.Sprintf("max_read=%d", cfg.MaxWrite),
	}
	if cfg.ReadOnly {
		opts = append(opts, "ro")
	}
	if cfg.AllowOther {
		opts = append(opts, "allow_other")
	}
	return strings.Join(opts, ",")
}

func helperText(stderr bytes.Buffer) string {
	return helperName + ": " + strings.TrimSpace(stderr.String())
}

// receiveFD takes the one descriptor that the helper sent.
func receiveFD(sock int) (int, error) {
	const op = "kernel.mount"
	data, oob := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(sock, data, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return -1, errs.E(op, errs.IO, "no descriptor from "+helperName, err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(msgs) != 1 {
		return -1, errs.E(op, errs.IO, helperName+" sent no descriptor", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return -1, errs.E(op, errs.IO, helperName+" sent no descriptor", err)
	}
	return fds[0], nil
}

// unmountHelper unmounts through fusermount3, which tells success or failure
// and nothing more.
func unmountHelper(dir string, lazy bool) error {
	const op = "kernel.unmount"
	bin, err := helperPath(op)
	if err != nil {
		return err
	}
	args := []string{"-u"}
	if lazy {
		args = append(args, "-z")
	}
	var stderr bytes.Buffer
	cmd := exec.Command(bin, append(args, "--", dir)...)
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return errs.E(op, errs.Other, helperText(stderr), err)
	}
	return nil
}

// checkAllowOther looks for the permission that fusermount3 wants.
func checkAllowOther() error {
	b, err := os.ReadFile(fuseConf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return errs.E("kernel.mount", errs.IO, fuseConf, err)
	}
	if userAllowOther(b) {
		return nil
	}
	return errs.E("kernel.mount", errs.Permission, "access by other users is not allowed to ordinary users here", nil).
		WithHint("add the line user_allow_other to " + fuseConf + ", mount as root, or mount without access for others")
}

// userAllowOther reads fuse.conf: the option stands alone on its line.
func userAllowOther(conf []byte) bool {
	for line := range bytes.Lines(conf) {
		line, _, _ = bytes.Cut(line, []byte("#"))
		if string(bytes.TrimSpace(line)) == "user_allow_other" {
			return true
		}
	}
	return false
}
