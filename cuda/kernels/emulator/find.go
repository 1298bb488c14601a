package emulator

import (
	"fmt"
	"regexp"
	"strings"
)

// kernel is one that a source defines.
type kernel struct {
	name   string
	bounds []string // arguments of __launch_bounds__, nil where there is none
}

var (
	globalWord = regexp.MustCompile(`\b__global__\b`)
	externC    = regexp.MustCompile(`extern\s*"C"\s*$`)
	identifier = regexp.MustCompile(`^[A-Za-z_]\w*`)
)

// findKernels finds what stands between `extern "C" __global__` and the parameters: void, the name, and the launch
// bounds before or after void. A kernel without extern "C" has no name that a driver finds, so it is an error.
func findKernels(text string) ([]kernel, error) {
	var list []kernel
	seen := map[string]bool{}
	for _, at := range globalWord.FindAllStringIndex(text, -1) {
		rest := strings.TrimSpace(text[at[1]:])
		if !externC.MatchString(strings.TrimRight(text[:at[0]], " \t\n")) {
			return nil, fmt.Errorf(`a kernel is not extern "C" __global__: %q`, excerpt(rest))
		}
		var k kernel
		for k.name == "" {
			word := identifier.FindString(rest)
			rest = strings.TrimSpace(rest[len(word):])
			switch word {
			case "":
				return nil, fmt.Errorf(`no kernel's name follows extern "C" __global__: %q`, excerpt(rest))
			case "void", "static", "inline":
			case "__launch_bounds__":
				args, after, ok := balanced(rest)
				if !ok {
					return nil, fmt.Errorf("__launch_bounds__ without its argument: %q", excerpt(rest))
				}
				k.bounds, rest = args, strings.TrimSpace(after)
			default:
				k.name = word
			}
		}
		if !strings.HasPrefix(rest, "(") {
			return nil, fmt.Errorf("no parameters follow the kernel's name %s", k.name)
		}
		if !seen[k.name] { // a declaration and its definition are one
			seen[k.name] = true
			list = append(list, k)
		}
	}
	return list, nil
}

// balanced splits the arguments in the parentheses that s begins with.
func balanced(s string) (args []string, rest string, ok bool) {
	depth, from := 0, 1
	for i, c := range s {
		switch c {
		case '(':
			depth++
		case ')':
			depth--
			if depth == 0 {
				return append(args, strings.TrimSpace(s[from:i])), s[i+1:], true
			}
		case ',':
			if depth == 1 {
				args = append(args, strings.TrimSpace(s[from:i]))
				from = i + 1
			}
		}
		if depth == 0 {
			return nil, s, false
		}
	}
	return nil, s, false
}

func excerpt(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return s[:min(len(s), 60)]
}
