package metatest

import (
	"slices"
	"strings"
)

// guess is what the generator believes to exist, so that most operations meet
// something. It knows nothing of permissions and is wrong here and there,
// which is wanted.
type guess struct {
	name string
	dir  bool
	kids []*guess
}

// list gives the paths of all directories but the root, and of all others.
func (n *guess) list(prefix string, dirs, files []string) (d, f []string) {
	for _, k := range n.kids {
		if k.dir {
			dirs = append(dirs, prefix+k.name)
			dirs, files = k.list(prefix+k.name+"/", dirs, files)
		} else {
			files = append(files, prefix+k.name)
		}
	}
	return dirs, files
}

func (n *guess) kid(name string) int {
	return slices.IndexFunc(n.kids, func(k *guess) bool { return k.name == name })
}

// find walks a path; nil: nothing is there.
func (n *guess) find(path string) *guess {
	if path == "" {
		return n
	}
	for name := range strings.SplitSeq(path, "/") {
		i := n.kid(name)
		if i < 0 {
			return nil
		}
		n = n.kids[i]
	}
	return n
}

// split gives the directory of a path, nil if it is none, and the last name.
func (n *guess) split(path string) (*guess, string) {
	dir := ""
	name := path
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		dir, name = path[:i], path[i+1:]
	}
	if n = n.find(dir); n == nil || !n.dir {
		return nil, name
	}
	return n, name
}

// add puts k at path, if its directory exists and the name is free and legal.
func (n *guess) add(path string, k *guess) bool {
	dir, name := n.split(path)
	if dir == nil || name == "" || len(name) > 255 || dir.kid(name) >= 0 {
		return false
	}
	k.name = name
	dir.kids = append(dir.kids, k)
	return true
}

// cut removes what is at path.
func (n *guess) cut(path string) {
	if dir, name := n.split(path); dir != nil {
		if i := dir.kid(name); i >= 0 {
			dir.kids = slices.Delete(dir.kids, i, i+1)
		}
	}
}
