package tree

import (
	"agentdrive/metaserver/meta"
	"agentdrive/metaserver/rules"
)

// setAttr executes SetAttr.
func (u *unit) setAttr(x *meta.SetAttr) (meta.Result, error) {
	n, err := u.load(x.Ino)
	if err != nil {
		return nil, err
	}
	if err := rules.CheckSetAttr(&n.Attr, x); err != nil {
		return nil, err
	}
	if x.Set&meta.SetSize != 0 {
		if err := u.truncate(n, x.Size); err != nil {
			return nil, err
		}
	}
	if err := rules.SetAttr(&n.Attr, x, u.st.Now); err != nil {
		return nil, err
	}
	changed(n)
	return &meta.AttrResult{Attr: n.Attr}, nil
}
