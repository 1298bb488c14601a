package train

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Setting is one field of a task's config C that --set takes by name.
type Setting[C any] struct {
	Name, Words string
	// Get is the value as Put would read it; Put's error says what is wanted.
	Get func(*C) string
	Put func(*C, string) error
}

// Value is the setting's value in a config.
func (s *Setting[C]) Value(c *C) string { return s.Get(c) }

// Number is a setting from least to most.
func Number[C any](name, words string, least, most float64, at func(*C) *float64) Setting[C] {
	return Setting[C]{name, words,
		func(c *C) string { return strconv.FormatFloat(*at(c), 'g', -1, 64) },
		func(c *C, v string) error {
			x, err := strconv.ParseFloat(v, 64)
			if err != nil || !(x >= least && x <= most) {
				return fmt.Errorf("want a number from %g to %g", least, most)
			}
			*at(c) = x
			return nil
		}}
}

// Count is a whole number from least to most.
func Count[C any](name, words string, least, most int, at func(*C) *int) Setting[C] {
	return Setting[C]{name, words,
		func(c *C) string { return strconv.Itoa(*at(c)) },
		func(c *C, v string) error {
			x, err := strconv.Atoi(v)
			if err != nil || x < least || x > most {
				return fmt.Errorf("want a whole number from %d to %d", least, most)
			}
			*at(c) = x
			return nil
		}}
}

// Choice is one of some names, which are listed behind its words.
func Choice[C any](name, words string, from []string, at func(*C) *string) Setting[C] {
	list := strings.Join(from, ", ")
	return Setting[C]{name, words + ": " + list,
		func(c *C) string { return *at(c) },
		func(c *C, v string) error {
			if !slices.Contains(from, v) {
				return fmt.Errorf("want one of %s", list)
			}
			*at(c) = v
			return nil
		}}
}

// Flag is true or false.
func Flag[C any](name, words string, at func(*C) *bool) Setting[C] {
	return Setting[C]{name, words,
		func(c *C) string { return strconv.FormatBool(*at(c)) },
		func(c *C, v string) error {
			x, err := strconv.ParseBool(v)
			if err != nil {
				return errors.New("want true or false")
			}
			*at(c) = x
			return nil
		}}
}

// Set applies NAME=VALUE pairs to a config in order and reports every fault.
func Set[C any](c *C, settings []Setting[C], pairs []string) error {
	var faults []error
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok {
			faults = append(faults, fmt.Errorf("--set %s: want NAME=VALUE", pair))
			continue
		}
		at := slices.IndexFunc(settings, func(s Setting[C]) bool { return s.Name == strings.TrimSpace(name) })
		if at < 0 {
			names := make([]string, len(settings))
			for i, s := range settings {
				names[i] = s.Name
			}
			faults = append(faults, fmt.Errorf("--set %s: there is no setting %q; there are %s", pair, name, strings.Join(names, ", ")))
			continue
		}
		if err := settings[at].Put(c, strings.TrimSpace(value)); err != nil {
			faults = append(faults, fmt.Errorf("--set %s: %w", pair, err))
		}
	}
	return errors.Join(faults...)
}

// FactsOf are the settings of a config for a checkpoint's identity.
func FactsOf[C any](c *C, settings []Setting[C]) []Fact {
	var out []Fact
	for _, s := range settings {
		out = append(out, Fact{Name: s.Name, Value: s.Get(c)})
	}
	return out
}
