package coppice

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/declaration"
)

// firstGeneration is the generation that [Start] makes.
const firstGeneration = 1

// declarations are what the programs of the tree's processes declare of the tree, for all pools.
// The master's values count.
type declarations struct {
	log    *slog.Logger
	needed func() []string // the lines that every program of the tree's workers must declare

	mu      sync.Mutex
	records *declaration.Records
	hash    string // of what the tree has
}

func newDeclarations(log *slog.Logger, tree []string, needed func() []string) *declarations {
	return &declarations{log: log, needed: needed, records: declaration.NewRecords(tree, firstGeneration), hash: declaration.Digest(tree)}
}

// digest returns the digest of what the tree has.
func (d *declarations) digest() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hash
}

// tree returns what the tree has.
func (d *declarations) tree() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.records.Tree()
}

// add takes what a fresh worker of a pool declares, before it serves; nil = the same as the tree.
// If its program is new, by a reload, it must have what the tree needs. Otherwise what differs is
// logged, once for each field.
func (d *declarations) add(name, pool string, generation int, lines []string, reload bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if lines != nil && reload {
		if c, ok := declaration.Missing(d.needed(), lines); ok {
			return missing(c)
		}
	}
	d.records.Add(generation, pool, lines)
	if lines == nil || reload {
		return nil
	}
	if news := d.records.News(lines); len(news) > 0 {
		d.log.Info("a child declares other values of the tree than the master, whose values count", "name", name, "fields", listed(news))
	}
	return nil
}

// missing returns the error for a new program that lacks what the tree needs.
func missing(c declaration.Change) error {
	const advice = "a reload cannot change that: restart the program"
	switch {
	case c.Path == declaration.Functions:
		return fmt.Errorf("the new program has not registered the function %s (RegisterFunction), which a pool of the tree runs: %s, or delete the pool", c.Name, advice)
	case c.Name != declaration.Is:
		return fmt.Errorf("the new program has no %s at %s, which the tree needs: %s", c.Name, c.Path, advice)
	case c.To == "":
		return fmt.Errorf("the new program has no %s %s, which the tree has: %s", strings.ToLower(c.From), c.Path, advice)
	}
	return fmt.Errorf("%s is a %.64q in the new program, and a %q in the tree: %s", c.Path, c.To, c.From, advice)
}

// reloaded makes to the current generation. It logs what its program declares otherwise than the
// one before and what the tree keeps nevertheless, and returns the sizes that the tree is to take
// over.
func (d *declarations) reloaded(from, to int) []declaration.Change {
	const most = 20 // lines in the log
	d.mu.Lock()
	defer d.mu.Unlock()
	sizes, kept, computed := d.records.Reloaded(from, to)
	for _, c := range kept[:min(len(kept), most)] {
		d.log.Warn(keptLine(c))
	}
	if n := len(kept) - most; n > 0 {
		d.log.Warn("reload: the new program declares more that is different; the tree keeps what it has until the program is restarted", "fields", n)
	}
	if len(computed) > 0 {
		d.log.Info("reload: the new program declares other values for fields that the processes of the program before computed otherwise than "+
			"their master; the tree keeps its own until the program is restarted", "fields", listed(computed))
	}
	return sizes
}

// keptLine says what the new program declares, and what the tree keeps.
func keptLine(c declaration.Change) string {
	const until = "until the program is restarted"
	at := shown(c.Field.String())
	switch {
	case c.Name != declaration.Is && c.From == "":
		return fmt.Sprintf("reload: the new program declares %s %s; the tree keeps it unset %s", at, valueOf(c.To), until)
	case c.Name != declaration.Is:
		return fmt.Sprintf("reload: the new program declares %s %s; the tree keeps %s %s", at, valueOf(c.To), shown(c.From), until)
	case c.From == "":
		return fmt.Sprintf("reload: the new program declares a further child, %s (%s); the tree does not start it %s", at, shown(c.To), until)
	case c.To == "":
		return fmt.Sprintf("reload: the new program does not declare %s (%s); the tree keeps it %s", at, c.From, until)
	}
	return fmt.Sprintf("reload: the new program declares %s as %s; the tree keeps it as %s %s", at, shown(c.To), c.From, until)
}

// failed forgets a generation whose reload has failed.
func (d *declarations) failed(generation int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records.Failed(generation)
}

// apply notes that the tree has taken over a value.
func (d *declarations) apply(c declaration.Change) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.records.Apply(c)
	d.hash = declaration.Digest(d.records.Tree())
}

// listed returns changes as text: the first few.
func listed(changes []declaration.Change) string {
	const few = 8
	var b strings.Builder
	for i, c := range changes {
		if i == few {
			fmt.Fprintf(&b, " and %d more", len(changes)-few)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		switch at := shown(c.Field.String()); {
		case c.Name == declaration.Is && c.To == "":
			fmt.Fprintf(&b, "no %s (here %s)", at, c.From)
		case c.Name == declaration.Is && c.From == "":
			fmt.Fprintf(&b, "%s %s (not here)", at, shown(c.To))
		default:
			fmt.Fprintf(&b, "%s %s (here %s)", at, valueOf(c.To), valueOf(c.From))
		}
	}
	return b.String()
}

// valueOf returns a value of a declaration as text.
func valueOf(v string) string {
	if v == "" {
		return "unset"
	}
	return shown(v)
}

// shown returns a text of a child for the log.
func shown(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}
