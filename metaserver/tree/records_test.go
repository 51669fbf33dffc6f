package tree

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strings"
	"testing"

	"agentdrive/chunkserver/chunk"
	"agentdrive/internal/errs"
	"agentdrive/internal/wire"
	"agentdrive/metaserver/meta"
)

// records has every record of the package with examples.
var records = []struct {
	name     string
	empty    func() wire.Message
	examples []wire.Message
}{
	{"inode", func() wire.Message { return &inode{} }, []wire.Message{
		&inode{Attr: meta.Attr{Mode: dir, Nlink: 3, UID: 1, GID: 2, Size: 7, Atime: -5, Mtime: birth, Ctime: birth, Btime: 1, DataVersion: 9}, Parent: 1, Group: 5, NextSlot: 6},
		&inode{Attr: meta.Attr{Mode: file, Nlink: 1, Size: 10, Bytes: 5}, Parent: 8, Content: 4, Extents: 2, Trim: trim{1, 9, 3}},
		&inode{Attr: meta.Attr{Mode: file, Xattrs: true}, XattrSize: 11, XattrKeys: 1, Small: []xattr{{"user.a", []byte("x")}, {"user.b", nil}}},
		&inode{Attr: meta.Attr{Mode: meta.ModeSymlink | 0o777, Size: 2}, Target: "ab"},
		&inode{Attr: meta.Attr{Mode: meta.ModeChar, Rdev: 0x501}},
		&inode{Attr: meta.Attr{Mode: meta.ModeFIFO}},
	}},
	{"entry", func() wire.Message { return &entry{} }, []wire.Message{&entry{Ino: 1 << 40, Type: meta.ModeDir}}},
	{"counters", func() wire.Message { return &counters{} }, []wire.Message{&counters{1, 2, 3, 4, true}, &counters{}}},
	{"extent", func() wire.Message { return &extent{} }, []wire.Message{
		&extent{Extent: meta.Extent{Len: 2, Kind: meta.ExtentInline, Inline: []byte("ab")}, Version: 3},
		&extent{Extent: blockExtent(chunk.BlockID{1, 2}, 0, 5, 4096), Version: 300},
	}},
	{"xattrRec", func() wire.Message { return &xattrRec{} }, []wire.Message{&xattrRec{[]byte("value")}, &xattrRec{}}},
	{"count", func() wire.Message { return &count{} }, []wire.Message{&count{2}}},
	{"orphan", func() wire.Message { return &orphan{} }, []wire.Message{&orphan{}, &orphan{true, []meta.SessionID{1, 500}}}},
	{"debt", func() wire.Message { return &debt{} }, []wire.Message{&debt{77777}}},
	{"BlockRec", func() wire.Message { return &BlockRec{} }, []wire.Message{
		&BlockRec{1, 2, 3, 4, 5, BlockLive, []chunk.ServerID{1, 2}}, &BlockRec{Len: 1, State: BlockFreed}}},
	{"repair", func() wire.Message { return &repair{} }, []wire.Message{&repair{1, 2, 3}}},
	{"freed", func() wire.Message { return &freed{} }, []wire.Message{&freed{-1, 2, 3, 4}}},
	{"totals", func() wire.Message { return &totals{} }, []wire.Message{&totals{1, 1 << 50}}},
}

// TestRecordsListed fails when a record of the package is missing above.
func TestRecordsListed(t *testing.T) {
	var listed []string
	for _, r := range records {
		listed = append(listed, r.name)
	}
	slices.Sort(listed)
	if found := wireTypes(t); !slices.Equal(found, listed) {
		t.Errorf("types with a layout: %v\nlisted: %v", found, listed)
	}
}

// wireTypes names the types of this package that have a method Wire.
func wireTypes(t *testing.T) (names []string) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".go") || strings.HasSuffix(f.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), f.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Name.Name != "Wire" {
				continue
			}
			if star, ok := fn.Recv.List[0].Type.(*ast.StarExpr); ok {
				names = append(names, star.X.(*ast.Ident).Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestRecordsRoundTrip(t *testing.T) {
	for _, r := range records {
		for i, x := range r.examples {
			b := encode(x)
			if b[0] != recordVersion {
				t.Errorf("%s %d: version %d", r.name, i, b[0])
			}
			y := r.empty()
			if err := decode([]byte("k"), b, y); err != nil {
				t.Errorf("%s %d: %v", r.name, i, err)
			} else if again := encode(y); !bytes.Equal(again, b) {
				t.Errorf("%s %d: %x became %x", r.name, i, b, again)
			}
			if err := decode([]byte("k"), append(slices.Clone(b), 0), r.empty()); !errs.Is(err, errs.Corrupt) {
				t.Errorf("%s %d: trailing byte: %v", r.name, i, err)
			}
			if err := decode([]byte("k"), append([]byte{recordVersion + 1}, b[1:]...), r.empty()); !errs.Is(err, errs.Version) {
				t.Errorf("%s %d: future version: %v", r.name, i, err)
			}
			for cut := range b {
				if err := decode([]byte("k"), b[:cut], r.empty()); !errs.Is(err, errs.Corrupt) {
					t.Errorf("%s %d: %d of %d bytes: %v", r.name, i, cut, len(b), err)
				}
			}
		}
	}
}

// FuzzRecords: what decodes, encodes to the same bytes.
func FuzzRecords(f *testing.F) {
	for i, r := range records {
		for _, x := range r.examples {
			f.Add(uint8(i), encode(x))
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, b []byte) {
		r := records[int(which)%len(records)]
		x := r.empty()
		if decode([]byte("k"), b, x) != nil {
			return
		}
		if again := encode(x); !bytes.Equal(again, b) {
			t.Errorf("%s: %x became %x", r.name, b, again)
		}
	})
}

// TestExtentKeys: a record whose key cannot be right is refused.
func TestExtentKeys(t *testing.T) {
	s := Space{Layer: 1}
	val := encode(&extent{Extent: blockExtent(chunk.BlockID{1}, 0, 0, 100)})
	for last, ok := range map[uint64]bool{98: false, 99: true, meta.MaxSize - 1: true, meta.MaxSize: false, 1<<64 - 1: false} {
		e, err := decodeExtent(s.extentKey(1, last), val)
		if ok != (err == nil) || ok && e.Off != last-99 {
			t.Errorf("last %d: %+v, %v", last, e, err)
		}
		if !ok && !errs.Is(err, errs.Corrupt) {
			t.Errorf("last %d: %v", last, err)
		}
	}
}
