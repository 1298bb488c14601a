package score

import (
	"bytes"
	"fmt"
	"slices"

	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/rules"
)

// Form is what the line of a transaction looks like.
type Form string

const (
	// FormScore is an object of its own: score_id, the columns that name the transaction, scores, decision.
	FormScore Form = "score"
	// FormEvent is the event's own object, byte for byte, with further fields before its closing brace: features under
	// their names, then score_id, scores, decision and model. It wants Events.Raw.
	FormEvent Form = "event"
)

// taskFeatures stands for the task in the ids of lines that no model made.
const taskFeatures = "features"

// verdictFields are the names that a model's verdict has in a line.
var verdictFields = []string{"score_id", "scores", "decision", "rule", "rule_reason", "shadows", "late", "reasons", "model"}

// fields are the names of a line's fields as they are written, colon and what stands before them included.
type fields struct {
	id, scores, decision, rule, ruleReason, shadows, late, reasons, model string
	features                                                              []string
}

func (o *Options) checkForm() error {
	switch {
	case o.Artifact != nil && o.Spec != nil:
		return fmt.Errorf("a scorer computes the features of its model or of a spec, not both: the model carries its spec")
	case o.Form != "" && o.Form != FormScore && o.Form != FormEvent:
		return fmt.Errorf("output form %q: want %s or %s", o.Form, FormScore, FormEvent)
	case o.Form == FormEvent && o.Artifact == nil && o.Spec == nil:
		return fmt.Errorf("output form %s adds features and scores to events, and there is no classifier and no spec", FormEvent)
	}
	return nil
}

// AddedFields are the names that FormEvent adds to an event: none of them may be one of its own. They are empty for
// another form.
func (o *Options) AddedFields() ([]string, error) {
	if o.Form != FormEvent {
		return nil, nil
	}
	plan, err := o.plan()
	if err != nil {
		return nil, err
	}
	return o.addedFields(plan.Features()), nil
}

func (o *Options) addedFields(feats []features.Feature) []string {
	var names []string
	if o.writesFeatures() {
		for i := range feats {
			names = append(names, o.Prefix+feats[i].Name)
		}
	}
	if o.Artifact == nil {
		return append(names, o.Prefix+"late")
	}
	for _, name := range verdictFields {
		names = append(names, o.Prefix+name)
	}
	return names
}

// checkAdded refuses a model that would add fields to events which nobody has looked for in them: the events' decoders
// refuse those of the model that the scorer began with.
func (s *Scorer) checkAdded(feats []features.Feature) error {
	if s.o.Form != FormEvent {
		return nil
	}
	for _, name := range s.o.addedFields(feats) {
		if !slices.Contains(s.added, name) {
			return fmt.Errorf("it would add the field %s to events, which were not checked for one of that name: restart with it", name)
		}
	}
	return nil
}

// writesFeatures tells whether lines have the features: without a model there is nothing else to say.
func (o *Options) writesFeatures() bool { return o.Features || o.Spec != nil }

// answers tells whether transactions have lines.
func (s *Scorer) answers() bool { return s.predictor != nil || s.o.Spec != nil }

// nameFields makes the names ready.
func (s *Scorer) nameFields() {
	prefix := ""
	if s.o.Form == FormEvent {
		prefix = s.o.Prefix
	}
	name := func(before, n string) string { return before + string(appendString(nil, prefix+n)) + ":" }
	s.fields = fields{id: name(",", "score_id"), scores: name(",", "scores"), decision: name(",", "decision"),
		rule: name(",", "rule"), ruleReason: name(",", "rule_reason"), shadows: name(",", "shadows"),
		late: name(",", "late"), reasons: name(",", "reasons"), model: name(",", "model")}
	if s.o.Form != FormEvent {
		s.fields.id = name("{", "score_id")
	}
	for i := range s.feats {
		before := ","
		if i == 0 && s.o.Form != FormEvent {
			before = "" // first of an object of their own
		}
		s.fields.features = append(s.fields.features, name(before, s.feats[i].Name))
	}
	if s.o.Artifact == nil && s.o.Spec != nil {
		s.task = taskFeatures
	}
}

// appendRow writes the line of a transaction in the scorer's form; k is its row of features.
func (s *Scorer) appendRow(dst []byte, ev *Events, row, k int, score float64) []byte {
	if score == score { // else a rule decided before the model
		s.counts.Scored++
	}
	if k < len(s.live.ruled) && s.live.ruled[k] != rules.None {
		s.counts.Ruled++
	}
	if s.o.Form == FormEvent {
		dst = appendOpen(dst, ev.Raw[row])
		if s.o.writesFeatures() {
			dst = s.appendFeatures(dst, k)
		}
		if s.predictor != nil {
			dst = s.appendScoreID(dst, ev, row)
		}
		dst = s.appendVerdict(dst, row, k, score)
		return append(s.appendModel(dst), "}\n"...)
	}
	b := ev.Rows
	dst = s.appendScoreID(dst, ev, row)
	for _, c := range s.echo {
		f := &b.Schema.Fields[c]
		dst = append(dst, `,"`...)
		dst = append(dst, f.Name...)
		dst = append(dst, `":`...)
		dst = appendValue(dst, f, &b.Columns[c], row)
	}
	dst = s.appendVerdict(dst, row, k, score)
	if s.o.writesFeatures() {
		dst = append(dst, `,"features":{`...)
		dst = s.appendFeatures(dst, k)
		dst = append(dst, '}')
	}
	return append(s.appendModel(dst), "}\n"...)
}

// appendOpen writes an object without its closing brace. The decoder has read it: it is one, and not an empty one.
func appendOpen(dst, object []byte) []byte {
	object = bytes.Trim(object, " \t\r\n")
	object = bytes.TrimRight(object[:len(object)-1], " \t\r\n")
	return append(dst, object...)
}

func (s *Scorer) appendScoreID(dst []byte, ev *Events, row int) []byte {
	dst = append(dst, s.fields.id...)
	dst = append(dst, '"')
	dst = s.appendID(dst, ev, row)
	return append(dst, '"')
}

func (s *Scorer) appendFeatures(dst []byte, k int) []byte {
	for i, name := range s.fields.features {
		dst = append(dst, name...)
		dst = appendFloat(dst, s.values[i][k])
	}
	return dst
}

// appendVerdict writes what the model says, and whether the transaction came late.
func (s *Scorer) appendVerdict(dst []byte, row, k int, score float64) []byte {
	alert := s.predictor != nil && score >= s.threshold
	if s.predictor != nil {
		dst = append(dst, s.fields.scores...)
		dst = append(dst, '{')
		if score == score {
			dst = append(dst, '"')
			dst = append(dst, s.task...)
			dst = append(dst, `":`...)
			dst = appendFloat(dst, score)
		}
		dst = append(dst, '}')
		dst = s.appendDecision(dst, k, alert)
		if alert {
			s.counts.Alerts++
		}
		dst = s.appendShadows(dst, k)
	}
	if s.rows.Status[row] == features.Late {
		s.counts.Late++
		dst = append(dst, s.fields.late...)
		dst = append(dst, `true`...)
	}
	if s.predictor != nil && (s.o.Explain == ExplainAll && score == score || s.o.Explain == ExplainAlerts && alert) {
		dst = append(dst, s.fields.reasons...)
		dst = s.appendReasons(dst, k)
	}
	return dst
}

func (s *Scorer) appendReasons(dst []byte, k int) []byte {
	dst = append(dst, '[')
	for i, r := range s.predictor.Reasons(s.values, k, s.o.Reasons) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"feature":`...)
		dst = appendString(dst, r.Feature)
		dst = append(dst, `,"value":`...)
		dst = appendFloat(dst, r.Value)
		dst = append(dst, `,"typical":`...)
		dst = appendFloat(dst, r.Typical)
		dst = append(dst, `,"contribution":`...)
		dst = appendFloat(dst, r.Contribution)
		dst = append(dst, `,"text":`...)
		dst = appendString(dst, r.Words)
		dst = append(dst, '}')
	}
	return append(dst, ']')
}

func (s *Scorer) appendModel(dst []byte) []byte {
	if s.predictor == nil {
		return dst
	}
	dst = append(dst, s.fields.model...)
	dst = append(dst, '"')
	dst = append(dst, s.version...)
	return append(dst, '"')
}
