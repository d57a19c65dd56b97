package docs_test

import (
	"os"
	"regexp"
	"testing"
)

// TestConstants compares the values in constants.md with the code.
func TestConstants(t *testing.T) {
	page, err := os.ReadFile("constants.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` in `([^`]+)` \\| `([^`]+)` \\| .+ \\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) == 0 {
		t.Fatal("there are no rows")
	}
	for _, row := range rows {
		name, file, value := row[1], row[2], row[3]
		source, err := os.ReadFile("../" + file)
		if err != nil {
			t.Error(err)
			continue
		}
		declaration := regexp.MustCompile(`(?m)^\s*(const |var )?` + name + `(\s+time\.Duration)?\s*= ` + regexp.QuoteMeta(value) + `\s*(//.*)?$`)
		if !declaration.Match(source) {
			t.Errorf("%s does not say that %s is %s", file, name, value)
		}
	}
}
