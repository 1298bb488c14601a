// Package guard keeps strangers away from a scorer's HTTP server: tokens with scopes, rates, certificates, limits on
// connections.
//
// What enters: files of tokens and certificates, and requests. What leaves: who asks and what they may do, or a
// refusal. A token exists in the clear only where it is printed when made, and in the request that carries it; what is
// stored is a hash, and no token, hash or header ever goes into a message.
package guard

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Scope is what a token allows; scopes are a set of bits.
type Scope uint

const (
	Score   Scope = 1 << iota // POST /v1/score, forecasts, recommendations
	Labels                    // POST /v1/labels
	Read                      // status, models, quality, drift: what the page shows
	Admin                     // reload and promote models, /debug/pprof
	Metrics                   // GET /metrics
	None    Scope = 0         // no token is needed
)

var scopeNames = []string{"score", "labels", "read", "admin", "metrics"}

// ParseScopes reads names separated by commas.
func ParseScopes(text string) (Scope, error) {
	var all Scope
	for name := range strings.SplitSeq(text, ",") {
		i := slices.Index(scopeNames, name)
		if i < 0 {
			return 0, fmt.Errorf("scope %.40q: want some of %s, separated by commas", name, strings.Join(scopeNames, ","))
		}
		all |= 1 << i
	}
	return all, nil
}

func (s Scope) String() string {
	var names []string
	for i, n := range scopeNames {
		if s&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return strings.Join(names, ",")
}

// tokenPrefix marks a token in a leaked file or log for those who scan for such things.
const tokenPrefix = "onmart_"

// tokenBytes of randomness: 2^256 tokens cannot be tried, so that a fast hash is as good a guard of the file as a slow
// one, and a slow one would let anybody keep the processor busy with wrong tokens.
const tokenBytes = 32

// NewToken makes a token, and the line of the tokens file that knows it.
func NewToken(name string, scopes Scope) (token, line string, err error) {
	if err := checkName(name); err != nil {
		return "", "", err
	}
	var b [tokenBytes]byte
	rand.Read(b[:]) // never fails
	token = tokenPrefix + base64.RawURLEncoding.EncodeToString(b[:])
	sum := sha256.Sum256([]byte(token))
	return token, fmt.Sprintf("%s %s sha256:%s\n", name, scopes, hex.EncodeToString(sum[:])), nil
}

func checkName(name string) error {
	ok := name != "" && len(name) <= 64 &&
		strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789._-") == ""
	if !ok {
		return fmt.Errorf("name %.80q: want 1 to 64 letters, digits, dots, dashes or underscores", name)
	}
	return nil
}

// Holder is whom a token belongs to.
type Holder struct {
	Name   string
	Scopes Scope
	hash   [sha256.Size]byte
}

// Tokens of a file. A nil or empty set knows nobody.
type Tokens struct{ holders []Holder }

// Len is how many there are.
func (t *Tokens) Len() int { return len(t.holders) }

// Names in the order of the file.
func (t *Tokens) Names() []string {
	var out []string
	for _, h := range t.holders {
		out = append(out, h.Name)
	}
	return out
}

// ReadTokens reads a tokens file: lines of NAME SCOPES HASH, blank lines and comments after #. It reports all faults
// at once, by line, without showing what stands there. A file that others than its owner may write is refused.
func ReadTokens(path string) (*Tokens, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("tokens: %s may be written by others than its owner: chmod go-w %s", path, path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	return parseTokens(path, b)
}

func parseTokens(path string, b []byte) (*Tokens, error) {
	t := &Tokens{}
	var faults []string
	line := 0
	for text := range bytes.SplitSeq(b, []byte("\n")) {
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 || text[0] == '#' {
			continue
		}
		h, err := parseHolder(string(text))
		if err == nil && slices.ContainsFunc(t.holders, func(o Holder) bool { return o.Name == h.Name }) {
			err = fmt.Errorf("the name %s is there twice", h.Name)
		}
		if err != nil {
			faults = append(faults, fmt.Sprintf("line %d: %v", line, err))
			continue
		}
		t.holders = append(t.holders, h)
	}
	if faults == nil && len(t.holders) == 0 {
		faults = []string{"no token: make one with onmart token new"}
	}
	if faults != nil {
		return nil, fmt.Errorf("tokens: %s: %s", path, strings.Join(faults, "; "))
	}
	return t, nil
}

func parseHolder(text string) (h Holder, err error) {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return h, fmt.Errorf("%d words, want NAME SCOPES HASH", len(fields))
	}
	h.Name = fields[0]
	if err := checkName(h.Name); err != nil {
		return h, err
	}
	if h.Scopes, err = ParseScopes(fields[1]); err != nil {
		return h, err
	}
	digits, ok := strings.CutPrefix(fields[2], "sha256:")
	hash, err := hex.DecodeString(digits)
	if !ok || err != nil || len(hash) != len(h.hash) {
		return h, fmt.Errorf("the hash of %s is no sha256: and 64 hex digits", h.Name)
	}
	copy(h.hash[:], hash)
	return h, nil
}

// Find is the holder of a token, nil where it is nobody's. It looks at every entry, whatever it finds, and compares
// hashes, so that its time tells nothing of how much of a guess was right.
func (t *Tokens) Find(token string) *Holder {
	sum := sha256.Sum256([]byte(token))
	found := -1
	for i := range t.holders {
		same := subtle.ConstantTimeCompare(sum[:], t.holders[i].hash[:])
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	if found < 0 {
		return nil
	}
	return &t.holders[found]
}

// AddToken adds a line of NewToken to a tokens file, which only its owner may read where it is new. A name that is
// there, or a file that cannot be read, is refused, and the file stays. The whole file is replaced, so that a scorer
// never reads half of it.
func AddToken(path, name, line string) error {
	mode := os.FileMode(0o600)
	have, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		have = []byte("# NAME SCOPES HASH, made by onmart token new\n")
	case err != nil:
		return fmt.Errorf("tokens: %w", err)
	default:
		t, err := ReadTokens(path)
		if err != nil {
			return err
		}
		if slices.Contains(t.Names(), name) {
			return fmt.Errorf("tokens: %s has a token of the name %s: delete its line, or choose another name", path, name)
		}
		if info, err := os.Stat(path); err == nil {
			mode = info.Mode().Perm()
		}
	}
	if n := len(have); n > 0 && have[n-1] != '\n' {
		have = append(have, '\n')
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tokens-*")
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	defer os.Remove(f.Name()) // gone already where all went well
	_, err = f.Write(append(have, line...))
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("tokens: %s: %w", path, err)
	}
	return nil
}
