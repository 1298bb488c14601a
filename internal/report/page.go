// Package report makes one self-contained HTML file of figures, tables and curves.
//
// What enters: text, cells and points that are ready to be shown. What leaves: a page with its style and its
// charts (SVG, drawn here) inside it, that needs no network and no script, fits a phone and a wide screen, and
// follows the reader's light or dark setting. Equal input gives equal bytes. Text may hold anything; it is
// escaped. Numbers that are not finite are left out of charts.
package report

import (
	_ "embed"
	"html/template"
	"io"
	"slices"
	"strings"
)

// Page is the whole report, from top to bottom.
type Page struct {
	Title string
	Intro string // one or two sentences under the title
	Facts []Fact // what was measured, on what: a list under the intro
	Cards []Card // the figures that matter most
	Sections
	Footer string
}

// Sections follow one another.
type Sections []Section

// Section shows its parts in the order of the fields.
type Section struct {
	Heading string
	Text    []string // paragraphs
	Cards   []Card
	Tables  []Table
	Charts  []Chart
	Notes   []string // small print under the charts
}

// Fact is a name and a value.
type Fact struct{ Name, Value string }

// Card is one figure to be seen first.
type Card struct {
	Label string
	Value string
	Note  string // what to compare it with
	Tone  Tone
}

// Tone colours a card or a row.
type Tone string

const (
	Plain Tone = ""
	Good  Tone = "good"
	Bad   Tone = "bad"
)

// Table has numbers aligned right unless a column holds text. With a column of prose its rows are stacked on
// a phone, each cell behind its column's name; another table scrolls sideways there under its first column.
type Table struct {
	Caption string
	Columns []Column
	Rows    []Row
}

// Column heads a column of a table.
type Column struct {
	Name string
	Text bool // aligned left
	// Prose is text of several words, which wraps; each line of a cell starts a new one, the first in full
	// ink and those after it paler.
	Prose bool
}

func (t Table) Stack() bool {
	return slices.ContainsFunc(t.Columns, func(c Column) bool { return c.Prose })
}

// Row is one row's cells, as many as the table has columns.
type Row struct {
	Cells []string
	Lead  bool // the row the report is about, shown in bold
}

// Chart is a Line, Bars or Histogram.
type Chart interface {
	// figure draws; the size is fixed in SVG units and scales with the page.
	figure() figure
}

// figure is a drawn chart.
type figure struct {
	Title, Caption string
	Wide           bool
	SVG, Narrow    template.HTML
}

//go:embed page.html
var pageText string

//go:embed style.css
var styleText string

// Write writes the page as HTML.
func Write(w io.Writer, p *Page) error {
	t, err := template.New("page").Funcs(template.FuncMap{
		"lines": func(s string) []string { return strings.Split(s, "\n") },
		"draw":  func(c Chart) figure { return c.figure() },
		"style": func() template.CSS { return template.CSS(styleText) },
	}).Parse(pageText)
	if err != nil {
		return err
	}
	return t.Execute(w, p)
}
