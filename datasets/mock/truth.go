package mock

import (
	"slices"
	"time"
)

// Compromise is one planted cause of fraud: a user's card or a store, and the days (from the start, end exclusive)
// it lasts.
type Compromise struct {
	Kind     string `json:"kind"`
	ID       int64  `json:"id"`
	FromDay  int    `json:"from_day"`
	UntilDay int    `json:"until_day"`
}

// Truth is what was planted. Counts are of the days generated so far. Factors multiply demand; elasticity is the
// power of the price in it. Logarithms are natural.
type Truth struct {
	Seed        uint64           `json:"seed"`
	Lines       int64            `json:"lines"` // returns among them
	Purchases   int64            `json:"purchases"`
	FraudLines  map[string]int64 `json:"fraud_lines"`
	Compromises []Compromise     `json:"compromises"`
	// FraudTimes is the amount of a stolen card's purchase as a multiple of the user's mean; BadStoreShare is the
	// share of fraud at a compromised store.
	FraudTimes    float64 `json:"stolen_card_times"`
	BadStoreShare float64 `json:"bad_store_share"`

	FirstDay  string  `json:"first_day"`
	LastDay   string  `json:"last_day"`
	Users     int     `json:"users"`
	Stores    int     `json:"stores"`
	Products  int     `json:"products"`
	Promoted  int     `json:"promotions"`
	Trend     float64 `json:"trend"`          // of purchases, a year
	Promotion float64 `json:"promotion_lift"` // beside the effect of its price

	Categories []CategoryTruth `json:"categories"`
	Holidays   []HolidayTruth  `json:"holidays"` // those within the stream
	Rules      []RuleTruth     `json:"rules"`
	Rhythms    []RhythmTruth   `json:"rhythms"`
	Influence  InfluenceTruth  `json:"influence"`
	Returns    ReturnTruth     `json:"returns"`
	Rating     RatingTruth     `json:"rating"`
	Stockouts  StockoutTruth   `json:"stockouts"`
}

// CategoryTruth: weekly has the factors of Monday to Sunday, with mean 1. Over the year the logarithm of demand moves
// by Season cos(2 pi (day - PeakDay) / 365.25) and by a Christmas bump of that height.
type CategoryTruth struct {
	Name       string     `json:"name"`
	Weekly     [7]float64 `json:"weekly"`
	Season     float64    `json:"season"`
	PeakDay    float64    `json:"peak_day"` // of the year
	Christmas  float64    `json:"christmas"`
	Elasticity float64    `json:"elasticity"`
}

// HolidayTruth: Factor is of purchases on the day, 0 where the shop is closed.
type HolidayTruth struct {
	Name   string   `json:"name"`
	Factor float64  `json:"factor"`
	Days   []string `json:"days"`
}

// RuleTruth: a purchase that has all of First takes Then too with Probability.
type RuleTruth struct {
	First       []string `json:"first"`
	Then        string   `json:"then"`
	Probability float64  `json:"probability"`
}

// RhythmTruth: whoever has the habit of the product buys it again after Days, in the mean.
type RhythmTruth struct {
	Product string  `json:"product_id"`
	Days    float64 `json:"days"`
}

// InfluenceTruth: what an influencer buys, a follower buys with Probability between one and Most days later. Products
// with a rhythm are left out.
type InfluenceTruth struct {
	Links       int     `json:"links"`
	Probability float64 `json:"probability"`
	MeanLag     float64 `json:"mean_lag_days"`
	Most        int     `json:"most_days"`
}

// ReturnTruth: Rates are the shares of genuine lines that are returned within Most days, by zip of the user;
// Mistakes are the share undone within the hour.
type ReturnTruth struct {
	Lines    int64     `json:"lines"`
	Rates    []ZipRate `json:"rates"`
	Most     int       `json:"most_days"`
	Mistakes float64   `json:"mistakes"`
}

// ZipRate is a rate of one zip code.
type ZipRate struct {
	Zip  string  `json:"zip"`
	Rate float64 `json:"rate"`
}

// RatingTruth: a rating is Base and Slope times the product of the user's and the product's taste vectors.
type RatingTruth struct {
	Base  float64 `json:"base"`
	Slope float64 `json:"slope"`
}

// StockoutTruth: ProductDays without stock, and the requests for products that came on such days.
type StockoutTruth struct {
	ProductDays int64 `json:"product_days"`
	Requests    int64 `json:"requests"`
}

const dayLayout = "2006-01-02"

// plant writes down the plans.
func (s *Stream) plant() {
	name := func(day int) string { return dayOf(s.o.Start, day).Format(dayLayout) }
	t := &s.truth
	*t = Truth{
		Seed: s.o.Seed, FraudLines: map[string]int64{}, FraudTimes: stolenTimes, BadStoreShare: badStoreShare,
		FirstDay: name(0), LastDay: name(s.o.Days - 1),
		Users: len(s.users), Stores: len(s.stores), Products: len(s.products), Promoted: len(s.promotions),
		Trend: s.trend, Promotion: s.lift,
		Influence: InfluenceTruth{Links: s.links, Probability: influenceReach(), MeanLag: influenceMeanLag(),
			Most: influenceMost},
		Returns: ReturnTruth{Most: returnMost, Mistakes: mistakeShare},
		Rating:  RatingTruth{Base: ratingBase, Slope: ratingSlope},
	}
	for i := range s.categories {
		c := &s.categories[i]
		t.Categories = append(t.Categories, CategoryTruth{c.name, c.weekly, c.season, c.peakDay, c.christmas, c.elasticity})
	}
	for h := range holidays {
		f := HolidayTruth{Name: holidays[h].name, Factor: s.holiday[h]}
		for d := range s.o.Days {
			if s.calendar[d].holiday == h {
				f.Days = append(f.Days, name(d))
			}
		}
		if f.Days != nil {
			t.Holidays = append(t.Holidays, f)
		}
	}
	for _, r := range s.rules {
		f := RuleTruth{Then: s.products[r.then].id, Probability: r.probability}
		for _, i := range r.first {
			f.First = append(f.First, s.products[i].id)
		}
		t.Rules = append(t.Rules, f)
	}
	for i := range s.products {
		p := &s.products[i]
		if p.interval > 0 {
			t.Rhythms = append(t.Rhythms, RhythmTruth{p.id, float64(p.interval)})
		}
		for _, w := range p.outages {
			t.Stockouts.ProductDays += int64(w.until - w.from)
		}
	}
	for z, rate := range s.returns {
		t.Returns.Rates = append(t.Returns.Rates, ZipRate{zipCode(z), rate * returnReach()})
	}
}

// Truth is what was planted in the days generated so far.
func (s *Stream) Truth() Truth {
	t := s.truth
	t.Compromises = slices.Clone(t.Compromises)
	return t
}

func parseDay(text string) (time.Time, error) { return time.Parse(dayLayout, text) }
