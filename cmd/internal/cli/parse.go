package cli

import (
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"agentdrive/internal/errs"
)

// Type is how a flag's value is read.
type Type uint8

// The types of flags.
const (
	Bool     Type = iota // present, or =true, =false
	Text                 // any string
	Number               // integer >= 0
	Duration             // Go notation: 60s, 2m
	Address              // host:port
	Addrs                // host:port,host:port
	Choice               // one of Flag.Choices
	Size                 // bytes with a unit, or "none"
	Count                // integer >= 0, or "none"
)

// Flag is one flag of a verb.
type Flag struct {
	Name    string   // without dashes
	Short   string   // one letter, or ""
	Type    Type     // how the value is read
	Value   string   // placeholder in help, like DIR
	Default string   // value when absent; "" is false, 0 or empty
	Choices []string // for Choice
	Help    string   // what it does, in a few words
	NoEnv   bool     // a decision of the moment: only on the command line
	Hidden  bool     // between our own processes
}

// envPrefix begins our environment variables.
const envPrefix = "AGENTDRIVE_"

// Env is the flag's environment variable, or "".
func (f Flag) Env() string {
	if f.NoEnv || f.Hidden {
		return ""
	}
	return envPrefix + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// Input is a parsed command line. The getters panic for a flag that the verb
// does not have.
type Input struct {
	Args   []string
	values map[string]string
	given  map[string]bool
}

func (in *Input) text(name string) string {
	v, ok := in.values[name]
	if !ok {
		panic("cli: no flag --" + name)
	}
	return v
}

func (in *Input) bool(name string) bool { return in.text(name) == "true" }

func (in *Input) number(name string) int {
	n, _ := strconv.Atoi(in.text(name)) // checked by normalize; "" is 0
	return n
}

func (in *Input) duration(name string) time.Duration {
	d, _ := time.ParseDuration(in.text(name)) // checked by normalize
	return d
}

// limit gives a Size or Count, nil if there is none.
func (in *Input) limit(name string) *uint64 {
	v := in.text(name)
	if v == "" {
		return nil
	}
	n, _ := strconv.ParseUint(v, 10, 64) // checked by normalize
	return &n
}

func (in *Input) addrs(name string) []string {
	if v := in.text(name); v != "" {
		return strings.Split(v, ",")
	}
	return nil
}

func usage(format string, args ...any) *errs.Error {
	return errs.E("", errs.Usage, fmt.Sprintf(format, args...), nil)
}

// seeHelp is the hint of a usage error when there is no better one.
func seeHelp(c *Command) string { return "see `agentdrive " + c.Name + " --help`" }

// parse reads args, without the verb, for c. Environment variables in env
// ("K=V") stand in for flags that are not given.
func parse(c *Command, args, env []string) (*Input, error) {
	in := &Input{values: map[string]string{}, given: map[string]bool{}}
	flags := c.allFlags()
	for _, f := range flags {
		in.values[f.Name] = f.Default
	}
	if err := in.readEnv(flags, env); err != nil {
		return nil, err
	}
	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			in.Args = append(in.Args, args[i+1:]...)
			break
		}
		if len(a) < 2 || a[0] != '-' {
			in.Args = append(in.Args, a)
			continue
		}
		name, value, hasValue := strings.Cut(a, "=")
		f, err := findFlag(c, flags, name)
		if err != nil {
			return nil, err
		}
		switch {
		case hasValue:
		case f.Type == Bool:
			value = "true"
		case i+1 < len(args):
			i++
			value = args[i]
		default:
			return nil, usage("--%s needs a value (%s)", f.Name, f.Value).WithHint(seeHelp(c))
		}
		if in.given[f.Name] {
			return nil, usage("--%s is given twice", f.Name).WithHint(seeHelp(c))
		}
		if in.values[f.Name], err = normalize(f, "--"+f.Name, value); err != nil {
			return nil, err
		}
		in.given[f.Name] = true
	}
	if in.bool("help") {
		return in, nil // whatever else is wrong, help is the answer
	}
	return in, c.checkArgs(in.Args)
}

func (in *Input) readEnv(flags []Flag, env []string) error {
	byEnv := map[string]Flag{}
	for _, f := range flags {
		if f.Env() != "" {
			byEnv[f.Env()] = f
		}
	}
	for _, kv := range env {
		name, value, _ := strings.Cut(kv, "=")
		f, ok := byEnv[name]
		if !ok || value == "" {
			continue
		}
		v, err := normalize(f, name, value)
		if err != nil {
			return err
		}
		in.values[f.Name] = v
	}
	return nil
}

// checkEnv refuses variables with our prefix that no verb knows.
func checkEnv(env []string) error {
	var known []string
	for _, c := range Commands() {
		for _, f := range c.allFlags() {
			if f.Env() != "" {
				known = append(known, f.Env())
			}
		}
	}
	for _, kv := range env {
		name, _, _ := strings.Cut(kv, "=")
		if strings.HasPrefix(name, envPrefix) && !slices.Contains(known, name) {
			return usage("unknown environment variable %s", name).WithHint(suggest(name, known, "", "unset it; `agentdrive help environment` lists the known ones"))
		}
	}
	return nil
}

func findFlag(c *Command, flags []Flag, given string) (Flag, error) {
	long, isLong := strings.CutPrefix(given, "--")
	var names []string
	for _, f := range flags {
		if isLong && f.Name == long || !isLong && f.Short != "" && "-"+f.Short == given {
			return f, nil
		}
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	}
	return Flag{}, usage("unknown flag %s of `agentdrive %s`", given, c.Name).WithHint(suggest(given, names, "", seeHelp(c)))
}

// normalize checks a value and gives its canonical form. where names the flag
// or variable in errors.
func normalize(f Flag, where, v string) (string, error) {
	bad := func(want string) error {
		return usage("%s is %q, but must be %s", where, v, want)
	}
	switch f.Type {
	case Bool:
		switch strings.ToLower(v) {
		case "true", "1", "yes", "on":
			return "true", nil
		case "false", "0", "no", "off":
			return "false", nil
		}
		return "", bad("true or false")
	case Number:
		if n, err := strconv.Atoi(v); err != nil || n < 0 {
			return "", bad("a number")
		}
	case Size, Count:
		n, ok := parseSize(v, f.Type == Size)
		if !ok {
			want := `a number, or "none"`
			if f.Type == Size {
				want = `a size like 500M, 10GiB or "none"`
			}
			return "", bad(want)
		}
		return strconv.FormatUint(n, 10), nil
	case Duration:
		if d, err := time.ParseDuration(v); err != nil || d <= 0 {
			return "", bad("a duration like 60s or 2m")
		}
	case Address, Addrs:
		parts := strings.Split(v, ",")
		if f.Type == Address {
			parts = []string{v}
		}
		for i, a := range parts {
			parts[i] = strings.TrimSpace(a)
			if _, port, err := net.SplitHostPort(parts[i]); err != nil || port == "" {
				return "", bad(f.Value)
			}
		}
		return strings.Join(parts, ","), nil
	case Choice:
		if !slices.Contains(f.Choices, v) {
			return "", usage("%s is %q, but must be one of: %s", where, v, strings.Join(f.Choices, ", ")).
				WithHint(suggest(v, f.Choices, "", ""))
		}
	case Text:
	}
	return v, nil
}

// parseSize reads an integer, with a unit if units is set: K, M, G, T, P, E and
// KiB to EiB are powers of 1024, KB to EB powers of 1000. "none" is 0.
func parseSize(v string, units bool) (n uint64, ok bool) {
	if v == "none" {
		return 0, true
	}
	digits := strings.TrimRight(v, "KMGTPEkiB")
	n, err := strconv.ParseUint(digits, 10, 64)
	unit := v[len(digits):]
	if err != nil || unit == "" || !units {
		return n, err == nil && unit == ""
	}
	power := strings.Index("BKMGTPE", strings.ToUpper(unit[:1]))
	base := uint64(1024)
	switch {
	case unit == "B", len(unit) == 1 && power > 0, power > 0 && unit[1:] == "iB":
	case power > 0 && unit[1:] == "B":
		base = 1000
	default:
		return 0, false
	}
	for range power {
		if n > math.MaxUint64/base {
			return 0, false
		}
		n *= base
	}
	return n, true
}

func (c *Command) checkArgs(args []string) error {
	need := 0
	for _, a := range c.Args {
		if !a.Optional {
			need++
		}
	}
	switch {
	case len(args) < need:
		return usage("`agentdrive %s` needs %s", c.Name, c.Args[len(args)].Name).WithHint("usage: " + c.usageLine())
	case len(args) > len(c.Args):
		return usage("`agentdrive %s` takes no argument %q", c.Name, args[len(c.Args)]).WithHint("usage: " + c.usageLine())
	}
	return nil
}

// lookup finds the verb in args and returns what is left without it. Flags
// may stand before the verb.
func lookup(args []string) (*Command, []string, error) {
	var words []int // indexes of what may be the verb's words
	valued := map[string]bool{}
	for _, c := range Commands() {
		for _, f := range c.allFlags() {
			if f.Type != Bool {
				valued["--"+f.Name] = true
				if f.Short != "" {
					valued["-"+f.Short] = true
				}
			}
		}
	}
	for i := 0; i < len(args) && len(words) < 2 && args[i] != "--"; i++ {
		switch {
		case !strings.HasPrefix(args[i], "-"):
			words = append(words, i)
		case valued[args[i]]:
			i++
		}
	}
	if len(words) == 0 {
		return nil, args, nil
	}
	for n := len(words); n > 0; n-- {
		var name []string
		for _, i := range words[:n] {
			name = append(name, args[i])
		}
		if c := find(strings.Join(name, " ")); c != nil {
			rest := slices.Clone(args)
			for j := n - 1; j >= 0; j-- {
				rest = slices.Delete(rest, words[j], words[j]+1)
			}
			return c, rest, nil
		}
	}
	return nil, args, unknownVerb(args, words)
}

func unknownVerb(args []string, words []int) error {
	given := args[words[0]]
	var names, subs []string
	for _, c := range Commands() {
		if first, second, ok := strings.Cut(c.Name, " "); ok && first == given {
			subs = append(subs, second)
		}
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	switch {
	case len(subs) > 0 && len(words) == 1:
		return usage("`agentdrive %s` needs one of: %s", given, strings.Join(subs, ", ")).WithHint("see `agentdrive help`")
	case len(subs) > 0:
		return usage("unknown verb %q of `agentdrive %s`", args[words[1]], given).
			WithHint(suggest(args[words[1]], subs, "agentdrive "+given+" ", "there are: "+strings.Join(subs, ", ")))
	}
	return usage("unknown verb %q", given).WithHint(suggest(given, names, "agentdrive ", "see `agentdrive help`"))
}
