package recommender

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/onmart/onmart/ranking"
)

// Files of the artifact that are the task's own.
const (
	ModelFile     = "recommend.json"
	PurchasesFile = "context/purchases.parquet"
	UsersFile     = "vocabulary/users.parquet"
	ItemsFile     = "vocabulary/items.parquet"
	KNNFile       = "neighbours/knn.parquet"
	EASEFile      = "neighbours/ease.parquet"
	TogetherFile  = "neighbours/together.parquet"
)

// Names of the tensors, beside those of the program.
const tensorALS = "als.items"

const formatVersion = 1

// Model is what a training found out, beside tables of numbers: recommend.json.
type Model struct {
	FormatVersion int          `json:"format_version"`
	Kind          ranking.Kind `json:"kind"`
	// Now is the end of what was trained on, microseconds since 1970 UTC: answers are given as of it, or of the
	// latest purchase since.
	Now       int64          `json:"now_us"`
	Lines     int            `json:"lines"` // of purchases trained on
	Users     int            `json:"users"`
	Items     int            `json:"items"`
	Blend     *ranking.Blend `json:"blend,omitempty"`
	ALS       *ALS           `json:"als,omitempty"`
	Embedding *Embedding     `json:"embedding,omitempty"`
	EASE      bool           `json:"ease,omitempty"`
	Purchases int            `json:"purchases"`
}

// ALS is what folding a user in needs to know.
type ALS struct {
	Factors        int     `json:"factors"`
	Regularization float32 `json:"regularization"`
	Alpha          float32 `json:"alpha"`
}

// Embedding is the shape of the network.
type Embedding struct {
	Dim    int `json:"dim"`
	Recent int `json:"recent"` // items that a user's vector is made of
}

// Encode writes recommend.json.
func (m *Model) Encode(w io.Writer) error {
	m.FormatVersion = formatVersion
	if err := m.check(); err != nil {
		return fmt.Errorf("%s: %w", ModelFile, err)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	return e.Encode(m)
}

func decodeModel(b []byte) (*Model, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	m := &Model{}
	if err := d.Decode(m); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; copy the artifact again or train again", ModelFile, err)
	}
	if m.FormatVersion != formatVersion {
		return nil, fmt.Errorf("%s has format %d and this onmart reads format %d: train again", ModelFile,
			m.FormatVersion, formatVersion)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", ModelFile, err)
	}
	return m, nil
}

// Bounds on what an artifact may ask for.
const (
	maxDim    = 4096
	maxRecent = 1000
)

func (m *Model) check() error {
	switch {
	case !slices.Contains(ranking.Kinds(), m.Kind):
		return fmt.Errorf("it is a model of kind %q, and this onmart knows %v", m.Kind, ranking.Kinds())
	case m.Lines < 1 || m.Users < 1 || m.Items < 1 || m.Lines > math.MaxInt32:
		return fmt.Errorf("it has %d lines of %d users and %d items", m.Lines, m.Users, m.Items)
	case (m.Kind == ranking.Blended) != (m.Blend != nil):
		return errors.New("the weights of a blend are there for no blend, or missing")
	case m.Embedding != nil && (m.Embedding.Dim < 1 || m.Embedding.Dim > maxDim || m.Embedding.Recent < 1 ||
		m.Embedding.Recent > maxRecent):
		return fmt.Errorf("an embedding of %d numbers and %d items", m.Embedding.Dim, m.Embedding.Recent)
	}
	return nil
}
