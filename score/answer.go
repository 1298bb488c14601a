package score

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/score/model/recommender"
)

// maxSeries bounds the series of one forecast request: events wait while it is answered.
const maxSeries = 1000

// ForecastRequest asks for forecasts. Over GET its fields are query parameters, lists separated by commas.
type ForecastRequest struct {
	Series  []string  `json:"series"`  // keys; required
	Horizon int       `json:"horizon"` // steps ahead; 0 is what the model was trained for
	Levels  []float64 `json:"levels"`  // of the quantiles, ascending; empty is the model's
	Method  string    `json:"method"`  // empty is the combination
}

// ForecastAnswer is the answer: by series, what is expected of each step.
type ForecastAnswer struct {
	Model     string           `json:"model"`
	History   string           `json:"history_until"` // the end of the last closed step, RFC 3339
	Step      string           `json:"step"`
	Steps     []string         `json:"steps"` // start of each step, RFC 3339
	Forecasts []SeriesForecast `json:"forecasts"`

	levels []float64
	units  bool // demand is counted as stock is
}

// SeriesForecast is the forecast of one series, by step.
type SeriesForecast struct {
	Series    string               `json:"series"`
	Method    string               `json:"method"`
	Mean      []float64            `json:"mean"`
	Quantiles map[string][]float64 `json:"quantiles"` // by level
	// OnHand is how much there is, where events of stock told so, and StockOut, where demand is the sum of quantity, the
	// probability that the demand of all steps together, independent of each other, is more than that.
	OnHand   *float64 `json:"on_hand,omitempty"`
	StockOut *float64 `json:"stock_out_probability,omitempty"`

	whole *forecast.Forecast
}

// forecast answers GET and POST /v1/forecast.
func (h *Server) forecast(w http.ResponseWriter, r *http.Request) {
	var q ForecastRequest
	if !ask(w, r, &q) || !h.enter(w) {
		return
	}
	if len(q.Series) == 0 || len(q.Series) > maxSeries {
		httpError(w, http.StatusBadRequest, fmt.Sprintf("series: %d keys, want 1 to %d", len(q.Series), maxSeries))
		return
	}
	var answer *ForecastAnswer
	err := h.scorer.Inspect(func() (err error) {
		answer, err = h.ask(q)
		return err
	})
	var unknown *forecaster.Unknown
	switch {
	case errors.As(err, &unknown):
		httpError(w, http.StatusNotFound, err.Error())
	case err != nil:
		httpError(w, http.StatusBadRequest, err.Error())
	default:
		answer.runOut()
		writeJSON(w, answer)
	}
}

// runOut computes the probabilities of running out, while events go on. A series whose quantiles do not give one has none.
func (a *ForecastAnswer) runOut() {
	for i := range a.Forecasts {
		s := &a.Forecasts[i]
		if s.OnHand == nil || !a.units {
			continue
		}
		if total, err := forecast.NewTotal(s.whole, a.levels, 0, len(a.Steps), forecast.DefaultDependence); err == nil {
			p := total.Exceeds(*s.OnHand)
			s.StockOut = &p
		}
	}
}

func (h *Server) ask(q ForecastRequest) (*ForecastAnswer, error) {
	f := h.models.Forecaster
	m := f.Model()
	if q.Horizon == 0 {
		q.Horizon = m.Design.Horizon
	}
	answers, err := f.Forecast(forecaster.Request{Keys: q.Series, Horizon: q.Horizon, Levels: q.Levels, Method: q.Method})
	if err != nil {
		return nil, err
	}
	var panel features.MadePanel
	if p := f.Plan(); p != nil {
		panel = *p.Panel()
	}
	out := &ForecastAnswer{Model: h.models.ForecastVersion, Step: m.Design.Step.String()}
	for i, a := range answers {
		if i == 0 {
			for _, t := range a.Steps {
				out.Steps = append(out.Steps, datasets.FormatTime(t))
			}
			out.History = out.Steps[0]
		}
		s := SeriesForecast{Series: a.Key, Method: a.Method, Mean: a.Mean, Quantiles: map[string][]float64{}}
		for l, level := range a.Levels {
			s.Quantiles[strconv.FormatFloat(level, 'g', -1, 64)] = a.Quantiles[l]
		}
		s.OnHand, s.whole = h.scorer.stock.onHand(panel.Keys, a.Key), &a.Forecast
		out.levels = a.Levels
		out.Forecasts = append(out.Forecasts, s)
	}
	out.units = ofUnits(panel.Columns)
	return out, nil
}

// ofUnits tells whether the demand of a panel is counted as stock is.
func ofUnits(columns []features.PanelColumn) bool {
	return slices.ContainsFunc(columns, func(c features.PanelColumn) bool {
		return c.Role == features.RoleTarget && c.Kind == string(features.Sum) && c.Of == datasets.Quantity
	})
}

// RecommendRequest asks for what a user may want next, or for what goes with a basket. Over GET its fields are
// query parameters, lists separated by commas.
type RecommendRequest struct {
	User          string   `json:"user"`
	Recent        []string `json:"recent"` // items that the user has bought lately, beside what is known
	Basket        []string `json:"basket"` // ask instead for what goes with these
	K             int      `json:"k"`      // 0 is 10
	ExcludeBought bool     `json:"exclude_bought"`
	InStock       []string `json:"in_stock"`     // offer only these; without it what events of stock say is gone is left out
	NotForSale    []string `json:"not_for_sale"` // offer none of these
	Store         string   `json:"store"`        // whose stock counts; empty: that of all together
}

// RecommendAnswer is the answer, best first.
type RecommendAnswer struct {
	Model  string               `json:"model"`
	Known  bool                 `json:"known"`             // the user has purchases
	Ignore []string             `json:"ignored,omitempty"` // items of the request that were never sold
	Items  []recommender.Answer `json:"items"`
}

const defaultK = 10

// recommend answers GET and POST /v1/recommend.
func (h *Server) recommend(w http.ResponseWriter, r *http.Request) {
	q := RecommendRequest{K: defaultK}
	if !ask(w, r, &q) || !h.enter(w) {
		return
	}
	var list *recommender.List
	err := h.scorer.Inspect(func() (err error) {
		if q.InStock == nil && h.models.Recommender.Item() == datasets.ProductID {
			q.NotForSale = h.scorer.stock.goneFrom(q.Store, q.NotForSale)
		}
		list, err = h.models.Recommender.Recommend(recommender.Request{User: q.User, Recent: q.Recent, Basket: q.Basket, K: q.K,
			Filter: recommender.Filter{ExcludeBought: q.ExcludeBought, InStock: q.InStock, NotForSale: q.NotForSale}})
		return err
	})
	if err != nil {
		httpError(w, http.StatusBadRequest, err.Error())
		return
	}
	answer := RecommendAnswer{Model: h.models.RecommendVersion, Known: list.Known, Ignore: list.Ignore, Items: list.Items}
	if answer.Items == nil {
		answer.Items = []recommender.Answer{}
	}
	writeJSON(w, answer)
}

// ask reads a request from the query of a GET or the JSON body of a POST into the struct q points to. It has
// answered where it returns false.
func ask(w http.ResponseWriter, r *http.Request, q any) bool {
	var err error
	if r.Method == http.MethodGet {
		err = fromQuery(r.URL.Query(), q)
	} else {
		var body []byte
		if body, err = io.ReadAll(r.Body); err == nil {
			d := json.NewDecoder(bytes.NewReader(body))
			d.DisallowUnknownFields()
			if err = d.Decode(q); err == nil && d.More() {
				err = errors.New("text after the JSON object")
			}
		}
	}
	if err != nil {
		httpError(w, http.StatusBadRequest, err.Error())
	}
	return err == nil
}

// fromQuery fills the fields that a query names by their JSON names. Lists are separated by commas.
func fromQuery(query url.Values, q any) error {
	v := reflect.ValueOf(q).Elem()
	fields := map[string]reflect.Value{}
	var names []string
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		fields[name] = v.Field(i)
		names = append(names, name)
	}
	for name, values := range query {
		f, ok := fields[name]
		if !ok {
			return fmt.Errorf("parameter %.40q is not known: want %s", name, strings.Join(names, ", "))
		}
		if err := set(f, strings.Join(values, ",")); err != nil {
			return fmt.Errorf("parameter %s: %w", name, err)
		}
	}
	return nil
}

func set(f reflect.Value, text string) error {
	switch f.Kind() {
	case reflect.String:
		f.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%.40q is not true or false", text)
		}
		f.SetBool(b)
	case reflect.Int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%.40q is no whole number", text)
		}
		f.SetInt(int64(n))
	case reflect.Float64:
		x, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Errorf("%.40q is no number", text)
		}
		f.SetFloat(x)
	case reflect.Slice:
		for part := range strings.SplitSeq(text, ",") {
			e := reflect.New(f.Type().Elem()).Elem()
			if err := set(e, part); err != nil {
				return err
			}
			f.Set(reflect.Append(f, e))
		}
	}
	return nil
}
