package train

import (
	"strings"
	"testing"
)

type settings struct {
	rate  float64
	steps int
	kind  string
	on    bool
}

func settingsOf() []Setting[settings] {
	return []Setting[settings]{
		Number("rate", "", .1, 1, func(c *settings) *float64 { return &c.rate }),
		Count("steps", "", 1, 9, func(c *settings) *int { return &c.steps }),
		Choice("kind", "what", []string{"a", "b"}, func(c *settings) *string { return &c.kind }),
		Flag("on", "", func(c *settings) *bool { return &c.on }),
	}
}

func TestSettings(t *testing.T) {
	var c settings
	if err := Set(&c, settingsOf(), []string{"rate=.5", " steps = 9", "kind=b", "on=true", "rate=1"}); err != nil || c != (settings{1, 9, "b", true}) {
		t.Errorf("%+v, %v", c, err)
	}
	// What a setting says of itself is what it reads.
	var again settings
	for _, s := range settingsOf() {
		if err := s.Put(&again, s.Value(&c)); err != nil {
			t.Error(err)
		}
	}
	if again != c {
		t.Errorf("read again %+v, want %+v", again, c)
	}
	err := Set(&c, settingsOf(), []string{"rate=NaN", "rate=.05", "steps=10", "kind=c", "on=perhaps", "step=1", "rate"})
	for _, want := range []string{"--set rate=NaN: want a number from 0.1 to 1", "--set rate=.05: want a number", "--set steps=10: want a whole number from 1 to 9",
		"--set kind=c: want one of a, b", "--set on=perhaps: want true or false", `no setting "step"; there are rate, steps, kind, on`, "--set rate: want NAME=VALUE"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if c != (settings{1, 9, "b", true}) {
		t.Errorf("a refused value was set: %+v", c)
	}
}
