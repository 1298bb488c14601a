package main

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/yamlread"
	"github.com/onmart/onmart/train/tune"
)

const (
	configName = "onmart.yaml"
	envPrefix  = "ONMART_"
)

// envReserved are variables with our prefix that are no flags: they choose parts at run time or belong
// to the tests.
var envReserved = []string{"ONMART_CONFIG", "ONMART_CPU", "ONMART_LIBCUDA", "ONMART_DATA", "ONMART_TEST_PYTHON"}

// notSettable are flags that only the command line gives: a settings file must not say yes to every
// overwrite, nor name itself.
var notSettable = []string{"force", "config", "help", "version"}

// setting is one value of a layer, with the place it comes from for messages.
type setting struct {
	value any // string or []string
	where string
}

// applyConfig gives every flag of cmd that is not on the command line its value from onmart.yaml and the
// environment, in this order of rising priority. Within a layer the more specific key wins:
// train.fraud.delay over train.delay over delay.
func applyConfig(cmd *cobra.Command) error {
	file, err := readConfigFile(cmd)
	if err != nil {
		return err
	}
	environ, err := readEnviron(cmd)
	if err != nil {
		return err
	}
	merged := koanf.New(".")
	where := map[string]string{}
	for _, layer := range []func(key string) (setting, bool){
		func(key string) (setting, bool) { s, ok := file[key]; return s, ok },
		func(key string) (setting, bool) { s, ok := environ[envName(key)]; return s, ok },
	} {
		values := map[string]any{}
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if slices.Contains(notSettable, f.Name) {
				return
			}
			for _, section := range sections(cmd) {
				if s, ok := layer(section + f.Name); ok {
					values[f.Name], where[f.Name] = s.value, s.where
				}
			}
		})
		if err := merged.Load(confmap.Provider(values, ""), nil); err != nil {
			return err
		}
	}
	fromFlags := posflag.ProviderWithFlag(cmd.Flags(), ".", merged, func(f *pflag.Flag) (string, any) {
		if !f.Changed {
			return "", nil
		}
		delete(where, f.Name)
		return f.Name, f.Value.String()
	})
	if err := merged.Load(fromFlags, nil); err != nil {
		return err
	}
	var faults []error
	for _, name := range slices.Sorted(maps.Keys(where)) {
		if err := setFlag(cmd.Flags(), name, merged.Get(name)); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", where[name], err))
		}
	}
	return errors.Join(faults...)
}

// setFlag gives a flag the value of a layer.
func setFlag(flags *pflag.FlagSet, name string, value any) error {
	f := flags.Lookup(name)
	list, isList := value.([]string)
	if slice, ok := f.Value.(pflag.SliceValue); ok {
		if !isList {
			list = []string{value.(string)}
		}
		f.Changed = true
		return slice.Replace(list)
	}
	if isList {
		return fmt.Errorf("%s takes one value, not a list", name)
	}
	return flags.Set(name, value.(string))
}

// sections are the prefixes under which a command's flags are found, the general one first: "", "train.",
// "train.fraud.".
func sections(cmd *cobra.Command) []string {
	found := []string{""}
	prefix := ""
	for _, name := range strings.Fields(cmd.CommandPath())[1:] {
		prefix += name + "."
		found = append(found, prefix)
	}
	return found
}

// envName is the variable of a settings key: train.fraud.max-rejects is ONMART_TRAIN_FRAUD_MAX_REJECTS.
func envName(key string) string {
	return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "-", "_").Replace(key))
}

// readEnviron returns the variables with our prefix by name. One that is no setting of any command is
// reported on standard error, not refused: the environment belongs to more than this run.
func readEnviron(cmd *cobra.Command) (map[string]setting, error) {
	k := koanf.New("\x00") // names hold no such byte, so that nothing is nested
	if err := k.Load(env.Provider("\x00", env.Opt{Prefix: envPrefix}), nil); err != nil {
		return nil, err
	}
	var known []string
	for key := range settable(cmd.Root()) {
		known = append(known, envName(key))
	}
	found := map[string]setting{}
	for _, name := range k.Keys() {
		if slices.Contains(envReserved, name) {
			continue
		}
		if !slices.Contains(known, name) {
			if quiet, _ := cmd.Flags().GetBool("quiet"); !quiet {
				fmt.Fprintf(cmd.ErrOrStderr(), "onmart: the variable %s is no setting and is ignored%s\n", name, suggest(name, known))
			}
			continue
		}
		found[name] = setting{value: k.String(name), where: "the variable " + name}
	}
	return found, nil
}

// settable maps every key that onmart.yaml may hold to whether its flag takes a list. Where a key would be the
// name of a section (--train, and the command train), the section has it, and the flag's longer keys remain.
func settable(root *cobra.Command) map[string]bool {
	keys, isSection := map[string]bool{}, map[string]bool{}
	var name func(prefix string, cmd *cobra.Command)
	name = func(prefix string, cmd *cobra.Command) {
		for _, sub := range cmd.Commands() {
			isSection[prefix+sub.Name()] = true
			name(prefix+sub.Name()+".", sub)
		}
	}
	name("", root)
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		visit := func(f *pflag.Flag) {
			if slices.Contains(notSettable, f.Name) || f.Hidden {
				return
			}
			_, list := f.Value.(pflag.SliceValue)
			for _, section := range sections(cmd) {
				if !isSection[section+f.Name] {
					keys[section+f.Name] = keys[section+f.Name] || list
				}
			}
		}
		cmd.LocalFlags().VisitAll(visit)
		cmd.InheritedFlags().VisitAll(visit)
		for _, sub := range cmd.Commands() {
			if !sub.Hidden && sub.Name() != "help" {
				walk(sub)
			}
		}
	}
	walk(root)
	return keys
}

// readConfigFile reads the settings file into values by full key. Every fault is reported at once, with
// its line.
func readConfigFile(cmd *cobra.Command) (map[string]setting, error) {
	name, given := configPath(cmd)
	src, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) && !given {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("settings file: %w", err)
	}
	return parseConfig(name, src, settable(cmd.Root()))
}

// configPath is the settings file and whether somebody asked for it.
func configPath(cmd *cobra.Command) (name string, given bool) {
	if f := cmd.Flags().Lookup("config"); f != nil && f.Changed {
		return f.Value.String(), true
	}
	if name := os.Getenv("ONMART_CONFIG"); name != "" {
		return name, true
	}
	return configName, false
}

// parseConfig reads settings in YAML: sections are commands, keys are flags, values are scalars, or lists
// where the flag repeats. known is settable's answer.
func parseConfig(name string, src []byte, known map[string]bool) (map[string]setting, error) {
	tree, fault := yamlread.Parse(src)
	if fault != nil {
		return nil, fault.In(name)
	}
	p := &configParser{name: name, known: known, found: map[string]setting{}}
	for _, doc := range tree.Docs {
		if doc.Body != nil && doc.Body.Type() != ast.CommentType {
			p.section("", doc.Body)
		}
	}
	return p.found, errors.Join(p.faults...)
}

type configParser struct {
	name   string
	known  map[string]bool
	found  map[string]setting
	faults []error
}

func (p *configParser) fault(n ast.Node, format string, args ...any) {
	p.faults = append(p.faults, fmt.Errorf("%s:%d: %s", p.name, n.GetToken().Position.Line, fmt.Sprintf(format, args...)))
}

// section reads a mapping whose keys stand below prefix.
func (p *configParser) section(prefix string, n ast.Node) {
	var entries []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		entries = n.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{n}
	case *ast.NullNode:
		return
	default:
		p.fault(n, "expected settings, one `name: value` a line")
		return
	}
	for _, e := range entries {
		key := prefix + e.Key.GetToken().Value
		list, isFlag := p.known[key]
		switch {
		case isFlag:
			p.value(key, list, e.Value)
		case p.isSection(key):
			p.section(key+".", e.Value)
		case slices.Contains(notSettable, strings.TrimPrefix(key, prefix)):
			p.fault(e.Key, "%s is given on the command line only", key)
		default:
			p.fault(e.Key, "unknown setting %s%s", key, p.suggestKey(prefix, key))
		}
	}
}

func (p *configParser) isSection(key string) bool {
	for k := range p.known {
		if strings.HasPrefix(k, key+".") {
			return true
		}
	}
	return false
}

// value reads the value of one flag.
func (p *configParser) value(key string, list bool, n ast.Node) {
	where := fmt.Sprintf("%s:%d: %s", p.name, n.GetToken().Position.Line, key)
	switch v := n.(type) {
	case *ast.SequenceNode:
		if !list {
			p.fault(n, "%s takes one value, not a list", key)
			return
		}
		texts := []string{}
		for _, item := range v.Values {
			text, ok := scalarText(item)
			if !ok {
				p.fault(item, "%s: expected a plain value", key)
				return
			}
			texts = append(texts, text)
		}
		p.found[key] = setting{texts, where}
	case *ast.MappingNode, *ast.MappingValueNode:
		if !strings.HasSuffix("."+key, ".tune-space") {
			p.fault(n, "%s: expected a value", key)
			return
		}
		space, err := tune.FromNode(p.name, n)
		if err != nil {
			p.faults = append(p.faults, err)
			return
		}
		p.found[key] = setting{inlineSpace + space.String(), where}
	default:
		text, ok := scalarText(n)
		if !ok {
			p.fault(n, "%s: expected a value", key)
			return
		}
		p.found[key] = setting{text, where}
	}
}

// scalarText is a scalar as it was written.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// suggestKey names the nearest known setting of the section, or the sections that know the name.
func (p *configParser) suggestKey(prefix, key string) string {
	name := strings.TrimPrefix(key, prefix)
	var here, elsewhere []string
	for k := range p.known {
		if rest, ok := strings.CutPrefix(k, prefix); ok {
			here = append(here, strings.SplitN(rest, ".", 2)[0])
		}
		if strings.HasSuffix(k, "."+name) {
			elsewhere = append(elsewhere, k)
		}
	}
	if len(elsewhere) > 0 {
		slices.Sort(elsewhere)
		return "; it is known as " + strings.Join(elsewhere, ", ")
	}
	slices.Sort(here)
	if s := suggest(name, here); s != "" {
		return s
	}
	return "; known here: " + strings.Join(slices.Compact(here), ", ")
}

// suggest is ", did you mean X?" for the candidate nearest to what was typed, and nothing where none is
// near.
func suggest(typed string, candidates []string) string {
	if near := datasets.Nearest(typed, slices.Sorted(slices.Values(candidates))); near != "" {
		return fmt.Sprintf(", did you mean %s?", near)
	}
	return ""
}
