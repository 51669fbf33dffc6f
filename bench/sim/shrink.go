package sim

// Shrink makes a failing plan smaller: steps are left out, in pieces that
// become smaller, as long as what remains fails. bad decides; it is asked at
// most limit times. The result is minimal when the limit was not met: no
// single step can be left out.
func Shrink(p *Plan, limit int, bad func(*Plan) bool) *Plan {
	best := *p
	runs := 0
	try := func(steps []Step) bool {
		if runs >= limit {
			return false
		}
		runs++
		q := best
		q.Steps = steps
		if !bad(&q) {
			return false
		}
		best.Steps = steps
		return true
	}
	for piece := (len(best.Steps) + 1) / 2; piece > 0; {
		removed := false
		for at := 0; at < len(best.Steps) && runs < limit; {
			if try(without(best.Steps, at, piece)) {
				removed = true
			} else {
				at += piece
			}
		}
		if piece == 1 && !removed || runs >= limit {
			break
		}
		if !removed || piece > len(best.Steps) {
			piece = max(piece/2, 1)
		}
	}
	return fewerClients(&best, bad)
}

// fewerClients drops clients from the end that no step needs.
func fewerClients(p *Plan, bad func(*Plan) bool) *Plan {
	used := 0
	for _, x := range p.Steps {
		used = max(used, x.Client+1)
	}
	if used > 0 && used < p.Clients {
		q := *p
		if q.Clients = used; bad(&q) {
			return &q
		}
	}
	return p
}

// without leaves n steps out, from at on.
func without(list []Step, at, n int) []Step {
	out := append([]Step(nil), list[:at]...)
	return append(out, list[min(at+n, len(list)):]...)
}
