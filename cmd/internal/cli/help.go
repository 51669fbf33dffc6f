package cli

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"text/tabwriter"
)

const helpWidth = 88 // columns of wrapped help

// overview is the help without a verb.
func overview() string {
	var b strings.Builder
	b.WriteString("agentdrive: a filesystem shared by many machines.\n\nVerbs:\n")
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, c := range Commands() {
		if !c.Hidden {
			fmt.Fprintf(w, "  %s\t%s\n", c.Name, c.Summary)
		}
	}
	w.Flush()
	b.WriteString("\nTry:\n  agentdrive up --detach\n  agentdrive drive create demo\n  agentdrive mount demo ./mnt\n\n")
	b.WriteString("`agentdrive VERB --help` explains a verb; `agentdrive help environment` lists variables.\nThe local cluster is in --data DIR (AGENTDRIVE_DATA, default ./data); a remote one is\nnamed by --servers HOST:PORT,... (AGENTDRIVE_SERVERS).\n")
	return b.String()
}

// help is the text of `VERB --help`.
func (c *Command) help() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s.\n\nUsage: %s\n", c.Name, c.Summary, c.usageLine())
	if c.Help != "" {
		b.WriteString("\n" + wrap(c.Help) + "\n")
	}
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	if len(c.Args) > 0 {
		fmt.Fprint(w, "\nArguments:\n")
		for _, a := range c.Args {
			fmt.Fprintf(w, "  %s\t%s\n", a.Name, a.Help)
		}
		w.Flush()
	}
	fmt.Fprint(w, "\nFlags:\n")
	for _, f := range c.allFlags() {
		if !f.Hidden {
			fmt.Fprintf(w, "  %s\t%s\n", f.spell(), f.explain())
		}
	}
	w.Flush()
	if len(c.Examples) > 0 {
		b.WriteString("\nExamples:\n")
		for _, e := range c.Examples {
			fmt.Fprintf(&b, "  %s\n", e.Line)
			if e.Does != "" {
				fmt.Fprintf(&b, "      %s\n", e.Does)
			}
		}
	}
	return b.String()
}

func (f Flag) spell() string {
	s := "--" + f.Name
	if f.Short != "" {
		s = "-" + f.Short + ", " + s
	}
	if f.Type != Bool {
		s += " " + f.Value
	}
	return s
}

// explain is the flag's help with its default, choices and variable.
func (f Flag) explain() string {
	s := f.Help
	if len(f.Choices) > 0 {
		s += ": " + strings.Join(f.Choices, ", ")
	}
	var notes []string
	if f.Default != "" {
		notes = append(notes, "default "+f.Default)
	}
	if f.Env() != "" {
		notes = append(notes, f.Env())
	}
	if len(notes) > 0 {
		s += " (" + strings.Join(notes, "; ") + ")"
	}
	return s
}

// environment lists the variables and the flags they stand for.
func environment() string {
	flags := map[string]Flag{}
	verbs := map[string][]string{}
	for _, c := range Commands() {
		for _, f := range c.allFlags() {
			if f.Env() != "" {
				flags[f.Env()] = f
				verbs[f.Env()] = append(verbs[f.Env()], c.Name)
			}
		}
	}
	var names []string
	for name := range flags {
		names = append(names, name)
	}
	sort.Strings(names)
	var b strings.Builder
	b.WriteString("A variable says the same as its flag; the flag wins.\n\n")
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, name := range names {
		who := strings.Join(verbs[name], ", ")
		if len(verbs[name]) == len(Commands()) {
			who = "all verbs"
		}
		fmt.Fprintf(w, "  %s\t%s\t%s\n", name, flags[name].spell(), who)
	}
	w.Flush()
	return b.String()
}

func runHelp(_ context.Context, a *App, in *Input) error {
	name := strings.Join(in.Args, " ")
	if name == "" {
		return a.print(overview())
	}
	if name == "environment" {
		return a.print(environment())
	}
	if c := find(name); c != nil {
		return a.print(c.help())
	}
	var text []string
	for _, c := range Commands() {
		if strings.HasPrefix(c.Name, name+" ") {
			text = append(text, c.help())
		}
	}
	if text == nil {
		return unknownVerb(in.Args, []int{0})
	}
	return a.print(strings.Join(text, "\n"))
}

// wrap breaks paragraphs at helpWidth.
func wrap(text string) string {
	var b strings.Builder
	col := 0
	for _, word := range strings.Split(strings.ReplaceAll(text, "\n", " \n "), " ") {
		switch {
		case word == "\n":
			b.WriteString("\n")
			col = 0
			continue
		case word == "":
			continue
		case col > 0 && col+1+len(word) > helpWidth:
			b.WriteString("\n")
			col = 0
		case col > 0:
			b.WriteString(" ")
			col++
		}
		b.WriteString(word)
		col += len(word)
	}
	return b.String()
}

// Markdown is the reference docs/CLI.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# Command line\n\nGenerated from the table of verbs by `make generate`; do not edit.\n\n")
	b.WriteString("Flags may stand before or after arguments, as `--name value` or `--name=value`. Every verb takes `--json`. With it, errors are `{\"error\", \"kind\", \"hint\"}` on standard error. Unknown verbs, flags and `AGENTDRIVE_` variables are errors.\n\n")
	b.WriteString("## Exit codes\n\n| Code | Meaning |\n|---|---|\n")
	for code, meaning := range exitMeanings {
		fmt.Fprintf(&b, "| %d | %s |\n", code, meaning)
	}
	b.WriteString("\n## Verbs\n\n| Verb | |\n|---|---|\n")
	for _, c := range Commands() {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.Name, strings.ReplaceAll(c.Name, " ", "-"), c.Summary)
	}
	for _, c := range Commands() {
		fmt.Fprintf(&b, "\n### %s\n\n`%s`\n\n%s.\n", c.Name, c.usageLine(), strings.ToUpper(c.Summary[:1])+c.Summary[1:])
		if c.Help != "" {
			fmt.Fprintf(&b, "\n%s\n", c.Help)
		}
		b.WriteString("\n| | |\n|---|---|\n")
		for _, arg := range c.Args {
			fmt.Fprintf(&b, "| `%s` | %s |\n", arg.Name, arg.Help)
		}
		for _, f := range c.allFlags() {
			if !f.Hidden {
				fmt.Fprintf(&b, "| `%s` | %s |\n", f.spell(), f.explain())
			}
		}
		for i, e := range c.Examples {
			if i == 0 {
				b.WriteString("\n```sh\n")
			}
			b.WriteString(e.Line)
			if e.Does != "" {
				b.WriteString("  # " + e.Does)
			}
			b.WriteString("\n")
			if i == len(c.Examples)-1 {
				b.WriteString("```\n")
			}
		}
	}
	b.WriteString("\n## Environment\n\n```\n" + environment() + "```\n")
	return b.String()
}
