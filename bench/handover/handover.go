package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// pass is one kind of hand-over. In each round one mount changes something and
// the other looks; then the other changes it and the first looks.
type pass struct {
	name  string
	fresh bool // each round works on an object of its own
	open  func(dir string, round int) error
	do    func(dir string, round int, word string) error // what changes
	look  func(dir string, round int, word string) (seen bool, err error)
}

// passes in the order of the table. A fresh file is held by its maker, alone
// and still unwritten; the hot ones are handed over again and again, which
// ends in the modes for contended files and directories.
func passes() []pass {
	file := func(dir string, round int, fresh bool) string {
		if fresh {
			return filepath.Join(dir, fmt.Sprint("file-", round))
		}
		return filepath.Join(dir, "file-hot")
	}
	folder := func(dir string, round int, fresh bool) string {
		if fresh {
			return filepath.Join(dir, fmt.Sprint("dir-", round))
		}
		return filepath.Join(dir, "dir-hot")
	}
	var out []pass
	for _, fresh := range []bool{true, false} {
		kind := "hot"
		if fresh {
			kind = "fresh"
		}
		out = append(out, pass{
			name: kind + " file", fresh: fresh,
			open: func(dir string, round int) error {
				return os.WriteFile(file(dir, round, fresh), []byte("--------"), 0o644)
			},
			do: func(dir string, round int, word string) error { return overwrite(file(dir, round, fresh), word) },
			look: func(dir string, round int, word string) (bool, error) {
				b, err := os.ReadFile(file(dir, round, fresh))
				return string(b) == word, err
			},
		}, pass{
			name: kind + " directory", fresh: fresh,
			open: func(dir string, round int) error { return os.Mkdir(folder(dir, round, fresh), 0o755) },
			do: func(dir string, round int, word string) error {
				return os.WriteFile(filepath.Join(folder(dir, round, fresh), word), nil, 0o644)
			},
			look: func(dir string, round int, word string) (bool, error) {
				_, err := os.Lstat(filepath.Join(folder(dir, round, fresh), word))
				if errors.Is(err, fs.ErrNotExist) {
					return false, nil
				}
				return true, err
			},
		})
	}
	return out
}

// overwrite writes in place.
func overwrite(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// handOver prints the table of hand-overs and returns how many results were
// stale.
func handOver(c config, a, b string) (stale int, err error) {
	fmt.Println("| handed over | look after the other's change p50, p99, max ms | change after the other's look p50, p99, max ms | rounds | stale |")
	fmt.Println("|---|---|---|---|---|")
	for _, p := range passes() {
		looks, changes, n, err := p.run(c.rounds, a, b)
		if err != nil {
			return stale, fmt.Errorf("%s: %w", p.name, err)
		}
		stale += n
		fmt.Printf("| %s | %s | %s | %d | %d |\n", p.name, looks, changes, c.rounds, n)
	}
	return stale, nil
}

func (s spread) String() string {
	return fmt.Sprintf("%.2f, %.2f, %.2f", s.at(.5), s.at(.99), s.at(1))
}

func (p pass) run(rounds int, a, b string) (looks, changes spread, stale int, err error) {
	dirs := [2]string{a, b}
	for round := 1; round <= rounds; round++ {
		for turn := range 2 {
			from, to := dirs[(round+turn)%2], dirs[(round+turn+1)%2]
			if turn == 0 && (p.fresh || round == 1) {
				if err := p.open(from, round); err != nil {
					return nil, nil, 0, err
				}
			}
			word := fmt.Sprintf("%07d%c", round, 'a'+turn)
			begin := time.Now()
			if err := p.do(from, round, word); err != nil {
				return nil, nil, 0, err
			}
			mid := time.Now()
			seen, err := p.look(to, round, word)
			if err != nil {
				return nil, nil, 0, err
			}
			looks = append(looks, time.Since(mid))
			if turn == 1 || !p.fresh && round > 1 { // the other has looked before
				changes = append(changes, mid.Sub(begin))
			}
			if !seen {
				stale++
			}
		}
	}
	return looks, changes, stale, nil
}
