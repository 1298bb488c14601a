package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/testkit"
)

// promWords are the words of PromQL that stand where a metric could.
var promWords = strings.Fields(
	"and or unless by without on ignoring group_left group_right offset bool start end inf nan",
)

// metricsOf finds the metrics that an expression of PromQL reads, without understanding it: names outside of strings,
// braces, brackets and the lists of by and without that are no function and no word of the language.
func metricsOf(expr string) ([]string, error) {
	var found []string
	depth := 0
	for i := 0; i < len(expr); {
		switch c := expr[i]; {
		case c == '"' || c == '\'':
			end := i + 1
			for end < len(expr) && expr[end] != c {
				if expr[end] == '\\' {
					end++
				}
				end++
			}
			if end >= len(expr) {
				return nil, fmt.Errorf("a string does not end in %s", expr)
			}
			i = end + 1
		case c == '{' || c == '[':
			closing := strings.IndexByte(expr[i:], map[byte]byte{'{': '}', '[': ']'}[c])
			if closing < 0 {
				return nil, fmt.Errorf("%c does not end in %s", c, expr)
			}
			i += closing + 1
		case c == '(':
			depth++
			i++
		case c == ')':
			if depth--; depth < 0 {
				return nil, fmt.Errorf("a parenthesis too many in %s", expr)
			}
			i++
		case c == '_' || c == ':' || c|0x20 >= 'a' && c|0x20 <= 'z':
			end := i + 1
			for end < len(expr) && (expr[end] == '_' || expr[end] == ':' || expr[end]|0x20 >= 'a' && expr[end]|0x20 <= 'z' || expr[end] >= '0' && expr[end] <= '9') {
				end++
			}
			word, rest := expr[i:end], strings.TrimLeft(expr[end:], " ")
			i = end
			switch {
			case slices.Contains([]string{"by", "without", "on", "ignoring", "group_left", "group_right"}, word):
				if strings.HasPrefix(rest, "(") {
					i = len(expr) - len(rest) + strings.IndexByte(rest, ')') + 1
				}
			case strings.HasPrefix(rest, "(") || strings.HasPrefix(rest, "by ") || strings.HasPrefix(rest, "without ") || slices.Contains(promWords, word):
			default:
				found = append(found, word)
			}
		case c >= '0' && c <= '9':
			for i < len(expr) && (expr[i] == '.' || expr[i]|0x20 >= 'a' && expr[i]|0x20 <= 'z' || expr[i] >= '0' && expr[i] <= '9') {
				i++ // numbers and durations
			}
		default:
			i++
		}
	}
	if depth != 0 {
		return nil, fmt.Errorf("a parenthesis does not end in %s", expr)
	}
	return found, nil
}

func TestMetricsOfAnExpression(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`up{job="a"} == 0`, "up"},
		{`sum by (instance, le) (rate(x_bucket{a="y(z"}[5m] offset 1d)) > 2e9`, "x_bucket"},
		{`abs(a_total / b_total) > on (c) group_left (d) 0.5 * e_total and f unless g`, "a_total b_total e_total f g"},
	} {
		got, err := metricsOf(c.expr)
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, %v", c.expr, got, err)
		}
	}
	for _, bad := range []string{"sum(x", "x)", `x{a="b"`, `x == "a`} {
		if got, err := metricsOf(bad); err == nil {
			t.Errorf("%s gives %v", bad, got)
		}
	}
}

// exported are the metrics of docs/METRICS.md, which a test of package score holds against the code, with the series
// that histograms make, and those of the process and of Prometheus itself.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	doc, err := os.ReadFile(testkit.Root(t) + "/docs/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{"up": true, "process_resident_memory_bytes": true, "go_goroutines": true}
	for _, m := range regexp.MustCompile("(?m)^\\| `(onmart_\\w+)[^`]*` \\| (\\w+) \\|").FindAllStringSubmatch(string(doc), -1) {
		names[m[1]] = true
		if m[2] == "histogram" {
			names[m[1]+"_bucket"], names[m[1]+"_sum"], names[m[1]+"_count"] = true, true, true
		}
	}
	if len(names) < 30 {
		t.Fatalf("only %d metrics found", len(names))
	}
	return names
}

func TestAlertRulesAndDashboardReadMetricsThatExist(t *testing.T) {
	root, known := testkit.Root(t), exported(t)
	read := func(where, expr string) {
		names, err := metricsOf(strings.ReplaceAll(expr, "$__rate_interval", "5m"))
		if err != nil || len(names) == 0 {
			t.Errorf("%s: %v, metrics %v", where, err, names)
		}
		for _, n := range names {
			if !known[n] {
				t.Errorf("%s reads %s, which nothing exports", where, n)
			}
		}
	}
	b, err := os.ReadFile(root + "/deploy/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var rules struct {
		Groups []struct {
			Name  string
			Rules []struct {
				Alert, Expr, For    string
				Labels, Annotations map[string]string
			}
		}
	}
	if err := yaml.UnmarshalWithOptions(b, &rules, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	operations, err := os.ReadFile(root + "/docs/OPERATIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			seen++
			read(r.Alert, r.Expr)
			if r.Annotations["summary"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s has no summary or no severity", r.Alert)
			}
			if !strings.Contains(string(operations), "`"+r.Alert+"`") {
				t.Errorf("docs/OPERATIONS.md does not say what to do about %s", r.Alert)
			}
		}
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if b, err = os.ReadFile(root + "/deploy/dashboard.json"); err == nil {
		err = json.Unmarshal(b, &board)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			read("panel "+p.Title, target.Expr)
		}
		if len(p.Targets) == 0 {
			t.Errorf("panel %s reads nothing", p.Title)
		}
	}
	if seen < 10 || len(board.Panels) < 10 {
		t.Errorf("%d rules, %d panels", seen, len(board.Panels))
	}
}

// The commands of the unit and of the container file are known to the command line.
func TestDeployedCommandsExist(t *testing.T) {
	for _, file := range []string{"onmart.service", "Dockerfile"} {
		b, err := os.ReadFile(filepath.Join(testkit.Root(t), "deploy", file))
		if err != nil {
			t.Fatal(err)
		}
		var score *cobra.Command
		for _, c := range newRoot().Commands() {
			if c.Name() == "score" {
				score = c
			}
		}
		_, args, ok := strings.Cut(string(b), "onmart score ")
		if !ok {
			t.Fatalf("%s does not run onmart score", file)
		}
		args = regexp.MustCompile(`(?s)\n(Exec|FROM).*`).ReplaceAllString(args, "")
		flags := regexp.MustCompile(`\s--([a-z-]+)`).FindAllStringSubmatch(" "+args, -1)
		if len(flags) < 3 {
			t.Errorf("%s: only %d flags found", file, len(flags))
		}
		for _, flag := range flags {
			if score.Flags().Lookup(flag[1]) == nil && newRoot().PersistentFlags().Lookup(flag[1]) == nil {
				t.Errorf("%s: onmart score has no flag --%s", file, flag[1])
			}
		}
	}
	unit, err := os.ReadFile(filepath.Join(testkit.Root(t), "deploy", "onmart.service"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Type=notify", "WatchdogSec=", "DynamicUser=yes", "ProtectSystem=strict", "LoadCredential=tokens:", "Restart=", "NoNewPrivileges=yes", "CapabilityBoundingSet=\n"} {
		if !strings.Contains(string(unit), "\n"+want) {
			t.Errorf("the unit lacks %s", want)
		}
	}
}
