package datasets

import "strings"

// Nearest is the name among the given ones that a misspelt name most likely meant, or "" where none is
// close: at most a third of its letters, or two of a short name, wrong, missing or too many.
func Nearest(name string, among []string) string {
	best, at := max(2, len(name)/3)+1, ""
	for _, other := range among {
		if d := editDistance(strings.ToLower(name), strings.ToLower(other)); d < best {
			best, at = d, other
		}
	}
	return at
}

// didYouMean is the end of a message about an unknown name.
func didYouMean(name string, among []string) string {
	if near := Nearest(name, among); near != "" {
		return "; did you mean " + near + "?"
	}
	return "; it has " + strings.Join(among, ", ")
}

// editDistance is Levenshtein's, in bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diag, row[j+1] = row[j+1], min(diag+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
