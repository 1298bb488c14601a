package lint

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
)

// load asks the go command for our packages and what they reach, under some build tags.
func load(t *testing.T, tags string) map[string]pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-deps", "-tags", tags, "-json=ImportPath,Imports,ImportMap,CgoFiles,Standard", "./...")
	cmd.Dir = testkit.Root(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &errs)
	}
	graph := map[string]pkg{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath        string
			Imports, CgoFiles []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		graph[p.ImportPath] = pkg{imports: p.Imports, cgo: len(p.CgoFiles) > 0}
	}
	if _, ok := graph[module+"/internal/lint"]; !ok {
		t.Fatalf("go list did not name this package: %d packages", len(graph))
	}
	return graph
}

func TestImports(t *testing.T) {
	for _, tags := range []string{"", "nocuda"} {
		for _, fault := range check(load(t, tags)) {
			t.Errorf("tags %q: %s", tags, fault)
		}
	}
}

// The static build must not link the C library, which purego brings.
func TestNocudaLeavesPuregoOut(t *testing.T) {
	if _, there := load(t, "")["github.com/ebitengine/purego"]; !there {
		t.Error("the default build should reach purego")
	}
	if _, there := load(t, "nocuda")["github.com/ebitengine/purego"]; there {
		t.Error("the build with the tag nocuda reaches purego")
	}
}

// Each rule must bite: one breach is planted at a time in a graph that is clean.
func TestRulesBite(t *testing.T) {
	m := module + "/"
	clean := func() map[string]pkg {
		return map[string]pkg{
			m + "datasets":      {imports: []string{"fmt", m + "internal/atomicdir"}},
			m + "features":      {imports: []string{m + "datasets"}},
			m + "train/program": {imports: []string{"math"}},
			m + "train/cpu":     {imports: []string{m + "train/program"}},
			m + "train/graph":   {imports: []string{m + "train/program", "gorgonia.org/gorgonia"}},
			m + "train/baseline": {
				imports: []string{"github.com/sjwhitworth/golearn/trees"}},
			m + "train/fraud":        {imports: []string{m + "train/graph", m + "train/cpu", m + "features", m + "score/model", m + "train/baseline"}},
			m + "score/model":        {imports: []string{m + "features", m + "train/cpu", m + "train/program"}},
			m + "score/source":       {imports: []string{m + "datasets", "github.com/twmb/franz-go/pkg/kgo"}},
			m + "score":              {imports: []string{m + "score/model", m + "score/source"}},
			m + "cmd/onmart":         {imports: []string{m + "score", m + "train/fraud", m + "cuda", "github.com/spf13/cobra"}},
			m + "cuda":               {imports: []string{"github.com/ebitengine/purego"}},
			m + "internal/atomicdir": {imports: []string{"os"}},
		}
	}
	if faults := check(clean()); len(faults) > 0 {
		t.Fatalf("clean graph: %q", faults)
	}
	for _, c := range []struct{ from, to, want string }{
		{"datasets", m + "features", "datasets imports features"},
		{"features", m + "score/model", "features imports score/model"},
		{"internal/atomicdir", m + "features", "datasets imports features"}, // through a helper
		{"train/program", m + "internal/atomicdir", "train/program imports internal/atomicdir"},
		{"train/cpu", m + "train/graph", "train/cpu imports train/graph"},
		{"train/cpu", m + "score/model", "train/cpu imports score/model"},
		{"train/graph", m + "train/fraud", "train/graph imports train/fraud"},
		{"score", m + "train/graph", "score imports train/graph"},
		{"score", m + "train/fraud", "score imports train/fraud"},
		{"score/model", m + "score/source", "score/model imports score/source"},
		{"train/fraud", m + "score", "train/fraud imports score"},
		{"train/fraud", m + "cmd/onmart", "train/fraud imports cmd/onmart"},
		{"cuda", m + "internal/atomicdir", "cuda imports internal/atomicdir"},
		{"train/fraud", "gorgonia.org/gorgonia", "train/fraud reaches gorgonia.org/gorgonia"},
		{"cmd/onmart", "gorgonia.org/tensor", "cmd/onmart reaches gorgonia.org/tensor"},
		{"score/model", "gorgonia.org/tensor", "score reaches gorgonia.org/tensor"},
		{"train/fraud", "github.com/sjwhitworth/golearn/base", "train/fraud reaches github.com/sjwhitworth/golearn/base"},
		{"train/fraud", "github.com/twmb/franz-go/pkg/kgo", "train/fraud reaches github.com/twmb/franz-go"},
		{"score/model", "github.com/cockroachdb/pebble/v2", "score/model reaches github.com/cockroachdb/pebble"},
		{"train/cpu", "github.com/ebitengine/purego", "train/cpu reaches github.com/ebitengine/purego"},
		{"features", "github.com/spf13/pflag", "features reaches github.com/spf13/pflag"},
		{"datasets", m + "internal/testkit", "datasets reaches " + m + "internal/testkit"},
		{"cuda", m + "cuda/kernels/emulator", "cuda reaches " + m + "cuda/kernels/emulator"},
		{"cuda", m + "train/program", "cuda imports train/program"},
	} {
		g := clean()
		p := g[m+c.from]
		p.imports = append(slices.Clone(p.imports), c.to)
		g[m+c.from] = p
		if faults := check(g); !slices.ContainsFunc(faults, func(f string) bool { return strings.HasPrefix(f, c.want) }) {
			t.Errorf("%s -> %s: want %q among %q", c.from, c.to, c.want, faults)
		}
	}
	g := clean()
	g[m+"train/cpu"] = pkg{cgo: true}
	g[m+"kitchen"] = pkg{}
	if got := check(g); !slices.ContainsFunc(got, func(f string) bool { return strings.HasPrefix(f, "train/cpu uses cgo") }) ||
		!slices.ContainsFunc(got, func(f string) bool { return strings.HasPrefix(f, "kitchen belongs to no layer") }) {
		t.Errorf("got %q", got)
	}
}

// tracked lists the files of the repository: what git knows, and all of them in a tree without git.
func tracked(t *testing.T) []string {
	t.Helper()
	root := testkit.Root(t)
	out, err := exec.Command("git", "-C", root, "ls-files", "-z").Output()
	if err == nil && len(out) > 0 {
		var files []string
		for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
			files = append(files, filepath.Join(root, name))
		}
		return files
	}
	var files []string
	err = filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// isText picks the files whose text we write by hand.
func isText(path string) bool {
	switch filepath.Ext(path) {
	case ".go", ".md", ".sh", ".yaml", ".yml", ".html", ".css", ".py", ".json", ".c", ".h", ".cu", ".s":
		return true
	}
	return strings.HasSuffix(path, filepath.Join(".ci", "run"))
}

// machinePath matches an absolute path below a folder that only one machine has. It is put together here
// so that this file is clean itself.
var machinePath = regexp.MustCompile(`(^|[^\w.~$})-])/(` + strings.Join([]string{"work", "tmp", "home", "root"}, "|") + `)/\S*`)

func TestNoFileNamesAPathOfOneMachine(t *testing.T) {
	for _, path := range tracked(t) {
		if !isText(path) {
			continue
		}
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) { // removed and not yet committed
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for n, line := range bytes.Split(text, []byte("\n")) {
			if found := machinePath.Find(line); found != nil {
				t.Errorf("%s:%d names the machine path %q", path, n+1, found)
			}
		}
	}
}

func TestMachinePathMatches(t *testing.T) {
	for text, want := range map[string]bool{
		"see /" + "work/main": true, `"/` + `tmp/x"`: true, "a=/" + "tmp/x": true, "(/" + "root/go)": true,
		"https://example.org/" + "work/x": false, "$DIR/" + "tmp/x": false, "${D}/" + "tmp/x": false, "../" + "tmp/x": false, "the work/life": false,
	} {
		if got := machinePath.MatchString(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

var cgoImport = regexp.MustCompile(`(?m)^(import "C"|\s+"C")$`)

// cgo stays behind tags, also in files that this machine does not build.
func TestCgoIsTagged(t *testing.T) {
	for _, path := range tracked(t) {
		if filepath.Ext(path) != ".go" {
			continue
		}
		text, err := os.ReadFile(path)
		if err != nil || !cgoImport.Match(text) {
			continue
		}
		if !regexp.MustCompile(`(?m)^//go:build .*\b(cu|golearn_cgo)\b`).Match(text) {
			t.Errorf("%s imports C without the build tag cu or golearn_cgo", path)
		}
	}
}

// The tag cuda switches Gorgonia's own API: ours is never called that.
func TestNoBuildTagIsCalledCuda(t *testing.T) {
	tag := regexp.MustCompile(`(?m)^//go:build .*\bcuda\b`)
	for _, path := range tracked(t) {
		if filepath.Ext(path) != ".go" {
			continue
		}
		if text, err := os.ReadFile(path); err == nil && tag.Match(text) {
			t.Errorf("%s uses the build tag cuda: Gorgonia changes under it; use cu or nocuda", path)
		}
	}
}
