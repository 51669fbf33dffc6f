package core

// packer collects the data of small files that are published at the same time
// into shared blocks.
type packer struct {
	parts []*part
	bytes int
	files []*file
}

// expire starts the publication of what has waited for DirtyAge. Under leases
// it takes along what has waited for half of that: many files, few blocks.
func (c *Client) expire() {
	var k packer
	age := c.cfg.DirtyAge
	for e := c.buf.aged.Front(); e != nil; e = c.buf.aged.Front() {
		f := e.Value.(*file)
		if f.since+age > c.now {
			break
		}
		switch {
		case c.cfg.NoLeases:
			c.takeAll(f)
		case f.nobodys():
			f.since = c.now
			c.buf.aged.MoveToBack(e)
		default:
			age = c.cfg.DirtyAge / 2
			c.takeShared(f, &k)
		}
	}
	c.shareOut(&k)
	for _, f := range k.files {
		c.advance(f)
	}
}

// takeShared is takeAll for a file whose data may share a block with that of
// others. A block is shared only if its Writes can follow one another in the
// log the moment it is durable.
func (c *Client) takeShared(f *file, k *packer) {
	free := f.placed == len(f.parts)
	before := f.dirty.cost()
	var blocks []*part
	for _, p := range c.detach(f, f.dirty.takeAll(), before) {
		if p.put != nil {
			blocks = append(blocks, p)
		}
	}
	if free && len(blocks) == 1 && blocks[0].bytes <= c.cfg.BlockSize/4 {
		if k.bytes+blocks[0].bytes > c.cfg.BlockSize {
			c.shareOut(k)
		}
		k.parts = append(k.parts, blocks[0])
		k.bytes += blocks[0].bytes
	} else {
		for _, p := range blocks {
			c.putParts(p.put)
		}
	}
	k.files = append(k.files, f)
}

// shareOut stores what was collected as one block.
func (c *Client) shareOut(k *packer) {
	if len(k.parts) == 0 {
		return
	}
	b := k.parts[0].put
	if len(k.parts) > 1 {
		b = &put{parts: k.parts, data: make([]byte, 0, k.bytes)}
		for _, p := range k.parts {
			base := len(b.data)
			b.data = append(b.data, p.put.data...)
			for i := range p.spans {
				s := &p.spans[i]
				s.at += uint32(base)
				end := int(s.at) + len(s.data)
				s.data = b.data[s.at:end:end]
			}
			p.put = b
		}
	}
	c.putParts(b)
	k.parts, k.bytes = nil, 0
}
