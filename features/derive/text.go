package derive

import (
	_ "embed"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// Hash is a text's hash for the kinds hash and hashed_words: FNV-1a (64 bits) of its bytes, then MurmurHash3's
// finaliser. It is the same for ever and on every machine.
func Hash(s string) uint64 {
	h := uint64(fnvOffset)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return finish(h)
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func finish(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// hashInt is Hash of the decimal text.
func hashInt(v int64) uint64 {
	var buf [20]byte
	h := uint64(fnvOffset)
	for _, c := range strconv.AppendInt(buf[:0], v, 10) {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return finish(h)
}

// wordScanner goes over the words of a text.
type wordScanner struct {
	text  string
	at    int
	word  string // as it stands in the text
	pause bool   // whether a clause ended between the word and the one before it
}

// What a byte is to a wordScanner.
const (
	isLetter uint8 = 1 + iota
	isPause        // it ends a clause
	isWide         // part of a code point from 128 on
)

var byteClasses = func() (t [256]uint8) {
	for c := range t {
		switch {
		case c >= utf8.RuneSelf:
			t[c] = isWide
		case 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9':
			t[c] = isLetter
		}
	}
	for _, c := range ".,;:!?()\n" {
		t[c] = isPause
	}
	return t
}()

// letter tells what words are made of; an apostrophe within one belongs to it.
func letter(r rune) bool {
	if r < utf8.RuneSelf {
		return byteClasses[r] == isLetter
	}
	return unicode.IsLetter(r) || unicode.IsMark(r) || unicode.IsDigit(r)
}

func apostrophe(r rune) bool { return r == '\'' || r == '’' }

// next moves to the next word, if there is one.
func (w *wordScanner) next() bool {
	w.pause = false
	text, from := w.text, w.at
	for from < len(text) {
		class := byteClasses[text[from]]
		if class == isLetter {
			break
		}
		size := 1
		if class == isWide {
			var r rune
			if r, size = utf8.DecodeRuneInString(text[from:]); letter(r) {
				break
			}
		}
		w.pause = w.pause || class == isPause
		from += size
	}
	to := from
	for to < len(text) {
		if byteClasses[text[to]] == isLetter {
			to++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[to:])
		if !letter(r) {
			if !apostrophe(r) {
				break
			}
			if after, _ := utf8.DecodeRuneInString(text[to+size:]); !letter(after) {
				break
			}
		}
		to += size
	}
	w.word, w.at = text[from:to], to
	return to > from
}

// plain is a rune as it is hashed and compared.
func plain(r rune) rune {
	if r == '’' {
		return '\''
	}
	return lowerRune(r)
}

// hash is Hash of the word in lower case.
func (w *wordScanner) hash() uint64 {
	h := uint64(fnvOffset)
	for _, r := range w.word {
		if r = plain(r); r < utf8.RuneSelf {
			h = (h ^ uint64(r)) * fnvPrime
			continue
		}
		var buf [utf8.UTFMax]byte
		for _, c := range buf[:utf8.EncodeRune(buf[:], r)] {
			h = (h ^ uint64(c)) * fnvPrime
		}
	}
	return finish(h)
}

func countWords(s string) int {
	n := 0
	for w := (wordScanner{text: s}); w.next(); {
		n++
	}
	return n
}

//go:embed lexicon.txt
var lexiconText string

// lexicon is the weights of lexicon.txt in tenths; a negating word has negates.
var lexicon = sync.OnceValue(func() map[string]int8 {
	m, err := parseLexicon(lexiconText)
	if err != nil {
		panic("derive: " + err.Error()) // a test reads it
	}
	return m
})

const (
	negates   = 100 // marks a word as negating
	reach     = 3   // words that a negation reaches over
	longWord  = 32  // bytes; no longer word is in the lexicon
	weightOne = 10  // a weight of 1
)

// parseLexicon reads lines of a weight (-1 to 1, one decimal, or "not") and the words that have it.
func parseLexicon(text string) (map[string]int8, error) {
	m := map[string]int8{}
	for i, line := range strings.Split(text, "\n") {
		parts := strings.Fields(line)
		if len(parts) == 0 || parts[0] == "#" {
			continue
		}
		weight := int8(negates)
		if parts[0] != "not" {
			v, err := strconv.ParseFloat(parts[0], 64)
			if tenths := v * weightOne; err != nil || tenths < -weightOne || tenths > weightOne {
				return nil, fmt.Errorf("lexicon.txt:%d: weight %q", i+1, parts[0])
			} else if tenths < 0 {
				weight = int8(tenths - 0.5)
			} else {
				weight = int8(tenths + 0.5)
			}
		}
		for _, word := range parts[1:] {
			if _, twice := m[word]; twice || len(word) > longWord {
				return nil, fmt.Errorf("lexicon.txt:%d: %s is there twice, or too long", i+1, word)
			}
			m[word] = weight
		}
	}
	return m, nil
}

func sentiment(d []float64, texts []string, lexicon map[string]int8) {
	for i, s := range texts[:len(d)] {
		d[i] = sentimentOf(s, lexicon)
	}
}

// sentimentOf is the mean weight of the words in the lexicon, summed in twentieths, since a negated word has minus
// half its weight.
func sentimentOf(s string, lexicon map[string]int8) float64 {
	var sum, found int64
	negated := 0 // how many words ahead are
	for w := (wordScanner{text: s}); w.next(); {
		if w.pause {
			negated = 0
		}
		weight, known := w.weigh(lexicon)
		switch {
		case weight == negates:
			negated = reach + 1
		case known && negated > 0:
			sum -= int64(weight)
			found++
		case known:
			sum += 2 * int64(weight)
			found++
		}
		if negated > 0 {
			negated--
		}
	}
	if found == 0 {
		return 0
	}
	return float64(sum) / float64(2*weightOne*found)
}

// weigh looks the word up in lower case.
func (w *wordScanner) weigh(lexicon map[string]int8) (int8, bool) {
	if len(w.word) > 2*longWord {
		return 0, false
	}
	var buf [3*longWord + utf8.UTFMax]byte // lower case is at most half as long again
	n := 0
	for _, r := range w.word {
		if r = plain(r); r < utf8.RuneSelf {
			buf[n] = byte(r)
			n++
			continue
		}
		n += utf8.EncodeRune(buf[n:], r)
	}
	if n > 3 && string(buf[n-3:n]) == "n't" {
		return negates, true
	}
	v, ok := lexicon[string(buf[:n])]
	return v, ok
}
