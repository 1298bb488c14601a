package derive

import (
	"hash/fnv"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// Hashes never change: models were trained on them. The values were also computed by a Python script of five lines.
func TestHashIsPinned(t *testing.T) {
	for text, want := range map[string]uint64{
		"":                    0xefd01f60ba992926,
		"a":                   0x82a2a958a9bece5b,
		"12345":               0x2a80c0ef561103f3,
		"-1":                  0x36909e17f7acfa5b,
		"Zürich":              0x24b22821293c05d0,
		"the quick brown fox": 0x1cd65fcf86e59d9d,
	} {
		if got := Hash(text); got != want {
			t.Errorf("hash of %q is %#x, want %#x", text, got, want)
		}
	}
	if hashInt(12345) != Hash("12345") || hashInt(-1) != Hash("-1") || hashInt(-1<<63) != Hash("-9223372036854775808") {
		t.Error("a number's hash is not that of its text")
	}
}

func TestHashIsFNV(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		h := fnv.New64a()
		h.Write([]byte(s))
		if Hash(s) != finish(h.Sum64()) {
			t.Fatalf("hash of %q", s)
		}
	})
}

// Ids that follow each other fall evenly into buckets: chi-square of 64 buckets below 110 (p about 0.0002).
func TestHashSpreads(t *testing.T) {
	const n, buckets = 64000, 64
	var counts [buckets]int
	for i := range int64(n) {
		counts[hashInt(1_000_000+i)%buckets]++
	}
	var chi float64
	for _, k := range counts {
		d := float64(k - n/buckets)
		chi += d * d / (n / buckets)
	}
	if !(chi < 110) {
		t.Errorf("chi-square %.1f of %v", chi, counts)
	}
}

func words(s string) string {
	var list []string
	for w := (wordScanner{text: s}); w.next(); {
		list = append(list, w.word)
	}
	return strings.Join(list, "|")
}

func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "",
		"  ... ":                                 "",
		"Great shoes, 2nd pair!":                 "Great|shoes|2nd|pair",
		"don't; can’t 'quoted' ''":               "don't|can’t|quoted",
		"rock'n'roll end'":                       "rock'n'roll|end",
		"it''s":                                  "it|s",
		"na\u00efve nai\u0308ve \u00c7\u00e0 va": "na\u00efve|nai\u0308ve|\u00c7\u00e0|va",
		"٣ كتب":                                  "٣|كتب",
		"日本語 テスト":                                "日本語|テスト",
		"a\xffb":                                 "a|b",
		"x-y_z":                                  "x|y|z",
	} {
		if got := words(text); got != want {
			t.Errorf("words of %q: %s, want %s", text, got, want)
		}
		if n := countWords(text); want != "" && n != strings.Count(want, "|")+1 || want == "" && n != 0 {
			t.Errorf("%d words in %q", n, text)
		}
	}
}

// The scanner takes every letter of a text exactly once, in order.
func TestWordsTakeAllLetters(t *testing.T) {
	keep := func(s string) string {
		return strings.Map(func(r rune) rune {
			if letter(r) {
				return r
			}
			return -1
		}, s)
	}
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOf(rapid.RuneFrom([]rune("ab'’ .,é\n1"))).Draw(t, "s")
		if keep(words(s)) != keep(s) {
			t.Fatalf("%q: %s", s, words(s))
		}
		for w := range strings.SplitSeq(words(s), "|") {
			first, _ := utf8.DecodeRuneInString(w)
			last, _ := utf8.DecodeLastRuneInString(w)
			if w != "" && (!letter(first) || !letter(last)) {
				t.Fatalf("word %q", w)
			}
		}
	})
}

func TestWordHashIgnoresCase(t *testing.T) {
	for _, s := range []string{"GREAT", "Zürich", "Can’t", "ⱤȺ"} {
		w := wordScanner{text: s}
		if !w.next() || w.hash() != Hash(strings.ReplaceAll(strings.ToLower(s), "’", "'")) {
			t.Errorf("hash of %q", s)
		}
	}
}

func TestSentiment(t *testing.T) {
	for text, want := range map[string]float64{
		"":                                 0,
		"the box is here":                  0,
		"Excellent!":                       1,
		"good":                             0.6,
		"not good":                         -0.3,
		"I don't think it's GOOD":          -0.3, // think, it's: good is the third word after
		"not a very good":                  -0.3,
		"not a very, very good":            0.6, // another clause
		"not a very very good":             0.6, // too far away
		"not bad":                          0.25,
		"not. Good":                        0.6, // another clause
		"excellent but late and broken":    (1 - 0.4 - 0.7) / 3,
		"can’t recommend":                  -0.3,
		"awful awful":                      -0.9,
		strings.Repeat("x", 200) + " good": 0.6,
	} {
		if got := sentimentOf(text, lexicon()); !(got-want < 1e-15 && want-got < 1e-15) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
}

// The lexicon can be read, is of the size that is documented, has both sides, and is in lower case.
func TestLexicon(t *testing.T) {
	m, err := parseLexicon(lexiconText)
	if err != nil {
		t.Fatal(err)
	}
	var good, bad, not int
	for word, w := range m {
		switch {
		case w == negates:
			not++
		case w > 0:
			good++
		default:
			bad++
		}
		if word != strings.ToLower(word) || words(word) != word {
			t.Errorf("%q is not a word in lower case", word)
		}
	}
	if good < 150 || bad < 150 || not < 15 {
		t.Errorf("%d good, %d bad, %d negations", good, bad, not)
	}
	for _, text := range []string{"2 good", "x good", "0.5 good\n0.4 good", "-1.2 bad"} {
		if _, err := parseLexicon(text); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add("don't; can’t 'quoted' ''")
	f.Fuzz(func(t *testing.T, s string) {
		n := 0
		for w := (wordScanner{text: s}); w.next(); {
			n++
			w.hash()
		}
		if n != countWords(s) || n > len(s) {
			t.Errorf("%d words", n)
		}
		if v := sentimentOf(s, lexicon()); !(v >= -1 && v <= 1) {
			t.Errorf("sentiment %v", v)
		}
		lower := make([]string, 1)
		recase(lower, []string{s}, nil, lowerRune)
		upper := make([]string, 1)
		recase(upper, []string{s}, nil, upperRune)
		if utf8.ValidString(s) && (lower[0] != strings.ToLower(s) || upper[0] != strings.ToUpper(s)) {
			t.Errorf("%q: %q, %q", s, lower, upper)
		}
		if !slices.Equal(lower, []string{strings.ToLower(s)}) {
			t.Errorf("%q: %q", s, lower)
		}
	})
}
