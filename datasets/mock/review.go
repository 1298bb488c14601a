package mock

import "strings"

// Texts of reviews. THING stands for the product's name.
var (
	praise = []string{"Love this THING.", "The THING is great, just what I was looking for.",
		"Very happy with the THING, would buy it again.",
		"Best THING I have had.", "My friends asked where I got this THING."}
	neutral = []string{"The THING is all right.", "Does what it should, no more.", "Okay for the price.",
		"An average THING."}
	blame = []string{"Not happy with the THING.", "The THING is not what I expected.", "Would not buy this THING again.",
		"Disappointed, the THING is poor.", "Broke after a week."}
	fits    = []string{"Exactly my taste.", "Feels made for me."}
	fitsNot = []string{"Not my style at all.", "Others may like it."}
)

// review is a short text that agrees with the rating, and with how the product fits the buyer's taste where that is
// far from the middle.
func review(r *dice, rating int, name string, fit float64) string {
	texts := neutral
	switch {
	case rating >= 4:
		texts = praise
	case rating <= 2:
		texts = blame
	}
	text := strings.ReplaceAll(texts[r.IntN(len(texts))], "THING", name)
	switch {
	case fit > 1.5 && rating >= 4:
		text += " " + fits[r.IntN(len(fits))]
	case fit < 0 && rating <= 2:
		text += " " + fitsNot[r.IntN(len(fitsNot))]
	}
	return text
}
