package sim

// knownSeeds are seeds that noticed a broken rule when this was written. They
// move with the cores and the generator: a rule whose seed has moved away is
// looked for in others. -sim.table prints the current ones.
var knownSeeds = map[string]uint64{}
