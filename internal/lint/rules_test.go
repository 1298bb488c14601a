package lint

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const module = "github.com/onmart/onmart"

// pkg is what the rules need of a package.
type pkg struct {
	imports []string // of the package without its tests
	cgo     bool     // has files with import "C"
}

// layer says what the packages of a folder may reach, directly or through others of ours. A path covers
// the folders below it; the longest path that covers a package is its layer.
type layer struct {
	path  string
	below []string // of this module; its own folder is always allowed
	why   string
}

// layers is the order of the design: datasets <- features <- score/model <- {train/TASK, score} <- cmd.
// train/program and train/cpu stand below score/model; cuda stands alone.
var layers = []layer{
	{"cmd", []string{"datasets", "features", "forecast", "ranking", "score", "train", "analyze", "cuda", "internal"}, "commands wire libraries"},
	{"forecast", nil, "forecasting methods stand alone: the scorer answers with them, and may import nothing of train but program and cpu"},
	{"ranking", []string{"ranking", "train/program"}, "retrieval and ranking stand alone, for the same reason; their random numbers are those of programs"},
	{"datasets", []string{"internal"}, "data sets stand below everything"},
	{"features", []string{"datasets", "features/derive", "features/slab", "internal"}, "features know data sets only"},
	{"features/derive", []string{"datasets", "internal"}, "columns of a row know columns only, and nothing of windows"},
	{"features/slab", nil, "blocks of words and tables of them know nothing of features"},
	{"train/program", nil, "the instruction set imports nothing of ours"},
	{"train/cpu", []string{"train/program", "internal"}, "a backend knows programs only"},
	{"train/gpu", []string{"train/program", "cuda", "internal"}, "a backend knows programs and its device only"},
	{"train/graph", []string{"train/program", "internal"}, "graphs are lowered to programs and know no data"},
	{"train/tune", []string{"train/program", "internal"}, "a search knows settings by name, and no task"},
	{"train/traintest", []string{"train/program", "train/cpu", "train/gpu", "cuda", "internal"}, "tests of all tasks know programs and backends, and no task"},
	{"train/baseline", []string{"datasets", "features", "train/program", "internal"}, "baselines are apart from the engine"},
	{"train", []string{"datasets", "features", "forecast", "ranking", "score/model", "train", "internal"}, "tasks stand beside score: of score they know the artifact only"},
	{"score/model", []string{"datasets", "features", "forecast", "ranking", "train/program", "train/cpu", "internal"}, "inference runs programs on the CPU"},
	{"score/rules", []string{"datasets", "features", "internal"}, "rules know columns and expressions, and no model"},
	{"score/quality", []string{"datasets", "features", "internal"}, "live figures know scores, labels and values, and no model"},
	{"score", []string{"datasets", "features", "forecast", "ranking", "score/model", "score/rules", "score/quality", "train/program", "train/cpu", "internal"}, "scoring imports exactly program and cpu of train"},
	{"analyze", []string{"datasets", "features", "internal"}, "analyses stand beside training"},
	{"cuda", nil, "cuda stands alone"},
	{"internal", []string{"internal"}, "helpers know nothing of what they help"},
}

// confined says that only some packages of ours may lead to a module outside.
type confined struct {
	outside []string // import path prefixes
	through []string // folders of ours whose import of it is allowed
	never   []string // folders of ours that may not even reach it through those
	why     string
}

var confinements = []confined{
	{[]string{"gorgonia.org/gorgonia", "gorgonia.org/tensor", "gorgonia.org/dawson", "gorgonia.org/vecf32", "gorgonia.org/vecf64"},
		[]string{"train/graph"}, []string{"datasets", "features", "score", "train/program", "train/cpu", "train/gpu", "train/baseline", "cuda", "analyze", "internal"},
		"gorgonia is imported by train/graph alone, and scoring does without"},
	{[]string{"gorgonia.org/cu"}, []string{"cuda"}, nil, "gorgonia.org/cu is imported by cuda alone, behind its tag"},
	{[]string{"github.com/ebitengine/purego"}, []string{"cuda"}, nil, "the driver is opened by cuda alone"},
	{[]string{"github.com/sjwhitworth/golearn"}, []string{"train/baseline"}, []string{"datasets", "features", "score", "train/program", "train/cpu", "train/gpu", "train/graph", "cuda", "internal"},
		"golearn is imported by train/baseline alone"},
	{[]string{"github.com/twmb/franz-go", "github.com/aws/aws-sdk-go-v2", "github.com/cockroachdb/pebble"},
		[]string{"score", "cmd"}, []string{"datasets", "features", "train", "score/model", "analyze", "cuda", "internal"},
		"broker clients and the state store belong to score and cmd"},
	{[]string{"github.com/spf13", "github.com/knadh/koanf"}, []string{"cmd"}, []string{"datasets", "features", "train", "score", "analyze", "cuda", "internal"},
		"flags and settings end in cmd"},
	{[]string{module + "/internal/testkit", module + "/cuda/cudatest", module + "/cuda/kernels/emulator", module + "/cuda/kernels/kerneltest", module + "/train/traintest", "testing", "github.com/google/go-cmp", "pgregory.net/rapid"},
		[]string{"internal/testkit", "score/model/modeltest", "train/traintest", "cuda/cudatest", "cuda/kernels/emulator", "cuda/kernels/kerneltest"}, []string{"cmd", "datasets", "features", "train", "score", "analyze", "cuda"},
		"what tests need stays out of the product"},
}

// check returns every breach of the rules, as text, in order. The graph holds all packages that ours
// reach, by import path.
func check(graph map[string]pkg) []string {
	var faults []string
	for _, path := range slices.Sorted(maps.Keys(graph)) {
		folder, ours := strings.CutPrefix(path, module+"/")
		if !ours {
			continue
		}
		if graph[path].cgo {
			faults = append(faults, folder+" uses cgo: keep it behind a build tag")
		}
		faults = append(faults, checkLayer(graph, folder)...)
		for _, c := range confinements {
			faults = append(faults, checkConfined(graph, folder, c)...)
		}
	}
	return faults
}

// checkLayer reports the packages of ours that a folder reaches and may not.
func checkLayer(graph map[string]pkg, folder string) []string {
	l, ok := layerOf(folder)
	if !ok {
		return []string{folder + " belongs to no layer: add it to the rules, with its reason"}
	}
	var faults []string
	for target, trail := range reach(graph, module+"/"+folder, nil) {
		to, ours := strings.CutPrefix(target, module+"/")
		if !ours || covers(l.path, to) && layerPath(to) == l.path || slices.ContainsFunc(l.below, func(p string) bool { return covers(p, to) }) {
			continue
		}
		faults = append(faults, fmt.Sprintf("%s imports %s (%s): %s", folder, to, trail, l.why))
	}
	slices.Sort(faults)
	return faults
}

// checkConfined reports the ways from a folder to a module outside that avoid the packages allowed to
// import it, and any way at all where the folder must not reach it.
func checkConfined(graph map[string]pkg, folder string, c confined) []string {
	in := func(folders []string, folder string) bool {
		return slices.ContainsFunc(folders, func(p string) bool { return covers(p, folder) })
	}
	within := func(path string) bool {
		to, ours := strings.CutPrefix(path, module+"/")
		return ours && in(c.through, to)
	}
	never := in(c.never, folder) && !in(c.through, folder) || slices.ContainsFunc(c.never, func(p string) bool {
		return covers(p, folder) && slices.ContainsFunc(c.through, func(q string) bool { return covers(q, p) }) // a folder inside an allowed one
	})
	if in(c.through, folder) && !never {
		return nil
	}
	avoid := within
	if never {
		avoid = nil
	}
	ways := reach(graph, module+"/"+folder, avoid)
	for _, target := range slices.Sorted(maps.Keys(ways)) {
		for _, outside := range c.outside {
			if covers(outside, target) {
				return []string{fmt.Sprintf("%s reaches %s (%s): %s", folder, target, ways[target], c.why)}
			}
		}
	}
	return nil
}

// reach maps every package reachable from start to the chain that leads there; it does not go through
// packages for which avoid holds. Chains inside modules outside are not followed past their first package
// of interest, so that a dependency's own use of testing, say, is not ours.
func reach(graph map[string]pkg, start string, avoid func(string) bool) map[string]string {
	found := map[string]string{}
	var walk func(path, trail string)
	walk = func(path, trail string) {
		for _, next := range graph[path].imports {
			if _, seen := found[next]; seen || avoid != nil && avoid(next) {
				continue
			}
			chain := trail + " -> " + strings.TrimPrefix(next, module+"/")
			found[next] = chain
			if strings.HasPrefix(next, module+"/") {
				walk(next, chain)
			}
		}
	}
	walk(start, strings.TrimPrefix(start, module+"/"))
	return found
}

// covers reports whether path is prefix or below it.
func covers(prefix, path string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func layerOf(folder string) (layer, bool) {
	best, found := layer{}, false
	for _, l := range layers {
		if covers(l.path, folder) && len(l.path) >= len(best.path) {
			best, found = l, true
		}
	}
	return best, found
}

func layerPath(folder string) string {
	l, _ := layerOf(folder)
	return l.path
}
