package model

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/atomicdir"
)

// FormatVersion is what Save writes; Open reads no other. Any change of the manifest's fields is a new one.
const FormatVersion = 1

// Kind marks the manifest of an artifact among the other directories that onmart writes.
const Kind = "model"

// Manifest says what a model is, what it was made from and how good it was. Save fills Kind, FormatVersion,
// Version, SpecFingerprint, Nodes, Input, Features, Context and Files; its caller fills the rest.
type Manifest struct {
	Kind          string `json:"kind"`
	FormatVersion int    `json:"format_version"`
	Task          string `json:"task"`
	// Version names the model in every score: twelve hex digits of a digest over all of the manifest but
	// Created, and so over every file. The same data, spec and seed give the same version.
	Version string  `json:"version"`
	Created Created `json:"created"`

	SpecFingerprint string          `json:"spec_fingerprint"`
	Nodes           []features.Node `json:"nodes"`
	// Input is the schema of the transactions that the spec was planned on.
	Input    *datasets.Schema `json:"input"`
	Features []string         `json:"features"`
	// Typical is the median of each feature over the training rows: what reasons compare with. Of a
	// classifier, as Threshold, AlertsPerDay and Calibration are.
	Typical []float64 `json:"typical,omitempty"`

	Lineage Lineage `json:"lineage"`
	Seed    uint64  `json:"seed"`
	// Threshold is the probability from which a transaction is an alert, chosen for AlertsPerDay.
	Threshold    float64     `json:"threshold,omitzero"`
	AlertsPerDay float64     `json:"alerts_per_day,omitzero"`
	Calibration  Calibration `json:"calibration,omitzero"`
	// Settings of the training, such as epochs and hidden widths, by name.
	Settings map[string]string `json:"settings,omitempty"`
	// Validation is what the model was chosen by; Test what it was measured on once chosen, with the
	// baselines trained beside it. Both may be nil.
	Validation *Evaluation `json:"validation,omitempty"`
	Test       *Evaluation `json:"test,omitempty"`

	// Context describes context/state.bin, nil where the artifact carries no state.
	Context *Context                     `json:"context,omitempty"`
	Files   map[string]atomicdir.Written `json:"files"`
}

// Created says what made the artifact. It is not part of the version.
type Created struct {
	Command string   `json:"command"`
	Onmart  string   `json:"onmart"` // version of the program
	Args    []string `json:"args,omitempty"`
	Time    string   `json:"time"`    // RFC 3339
	Backend string   `json:"backend"` // what trained it, such as cpu-avx2
}

// Lineage is where the training rows came from.
type Lineage struct {
	Data  string   `json:"data"`               // datasets.Dataset.ID of the features
	From  string   `json:"from,omitempty"`     // and of the transactions they were made from
	Train Span     `json:"train"`              // event times trained on
	Delay Duration `json:"delay"`              // from the end of Train to the first row that may be scored
	Rows  int64    `json:"rows"`               // rows trained on
	Seen  int64    `json:"positives,omitzero"` // of them, positive
	Valid *Span    `json:"valid,omitempty"`    // rows that epochs were chosen on, if a range was given
}

// Calibration is the map of the model's output z to a probability, 1/(1+exp(-(A z + B))) (Platt 1999). The
// program applies it; here it is for people.
type Calibration struct {
	A float64 `json:"a"`
	B float64 `json:"b"`
}

// Evaluation is a model's figures on a range of a data set, by their snake_case names (auc,
// average_precision, card_precision_at_100, log_loss ...). A figure that is not defined is left out.
type Evaluation struct {
	Data      string             `json:"data"`  // datasets.Dataset.ID of the features
	Range     Span               `json:"range"` // event times evaluated
	Delay     Duration           `json:"delay"`
	Metrics   map[string]float64 `json:"metrics"`
	Baselines []Baseline         `json:"baselines,omitempty"`
}

// Baseline is a classical model on the same rows.
type Baseline struct {
	Name    string             `json:"name"`
	Metrics map[string]float64 `json:"metrics"`
}

// Context is the state of the feature engine at the end of training.
type Context struct {
	Watermark int64 `json:"watermark"` // greatest event time folded, microseconds since 1970 UTC
}

// Span is a range of event time that JSON holds as datasets.ParseRange reads it.
type Span struct{ datasets.Range }

// MarshalText is Range.String.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what datasets.ParseRange reads; all of time is the zero Range again.
func (s *Span) UnmarshalText(b []byte) error {
	r, err := datasets.ParseRange(string(b))
	if r.From == math.MinInt64 && r.To == math.MaxInt64 {
		r = datasets.Range{}
	}
	s.Range = r
	return err
}

// Duration is microseconds that JSON holds as datasets.ParseDuration reads them.
type Duration int64

// MarshalText is datasets.FormatDuration.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(datasets.FormatDuration(int64(d))), nil
}

// UnmarshalText reads what datasets.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	us, err := datasets.ParseDuration(string(b))
	*d = Duration(us)
	return err
}

// version digests all of the manifest but Created and Version.
func (m *Manifest) version() (string, error) {
	c := *m
	c.Version, c.Created = "", Created{}
	b, err := json.Marshal(&c)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6]), nil
}

// dropUndefined removes metrics that JSON cannot hold: those of a range without positives, for instance.
func (e *Evaluation) dropUndefined() *Evaluation {
	if e == nil {
		return nil
	}
	defined := func(m map[string]float64) map[string]float64 {
		d := map[string]float64{}
		for k, v := range m {
			if !math.IsNaN(v) && !math.IsInf(v, 0) {
				d[k] = v
			}
		}
		return d
	}
	c := *e
	c.Metrics = defined(e.Metrics)
	c.Baselines = nil
	for _, b := range e.Baselines {
		c.Baselines = append(c.Baselines, Baseline{b.Name, defined(b.Metrics)})
	}
	return &c
}

// decodeManifest reads manifest.json; errors do not name the directory.
func decodeManifest(b []byte) (*Manifest, error) {
	var head struct {
		Kind          string `json:"kind"`
		FormatVersion int    `json:"format_version"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; copy the artifact again or train again", manifestFile, err)
	}
	if head.Kind != Kind {
		what := "something that has no kind"
		if head.Kind != "" {
			what = fmt.Sprintf("a directory of kind %q", head.Kind)
		}
		return nil, fmt.Errorf("this is %s, not a model: give the directory that onmart train wrote", what)
	}
	if head.FormatVersion != FormatVersion {
		return nil, fmt.Errorf("the artifact has format %d and this onmart reads format %d: use the onmart that wrote it, or train again with this one",
			head.FormatVersion, FormatVersion)
	}
	m := &Manifest{}
	if err := decodeStrict(b, m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; copy the artifact again or train again", manifestFile, err)
	}
	want, err := m.version()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", manifestFile, err)
	}
	if m.Version != want {
		return nil, fmt.Errorf("%s was changed after it was written: its version is %.20q and its content gives %q; copy the artifact again or train again",
			manifestFile, m.Version, want)
	}
	return m, nil
}

// decodeStrict reads exactly one JSON value without unknown fields.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the end")
	}
	return nil
}
