package main

import (
	"fmt"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/score/model/recommender"
)

// scored are the models of a scorer: a classifier, or nil, and those that follow the events.
type scored struct {
	classifier *model.Artifact
	followers  []score.Following
	answering  score.Models
}

// openScored opens one model of each task at most.
func openScored(dirs []string, threads int) (*scored, error) {
	s := &scored{}
	byTask := map[string]string{}
	for _, dir := range dirs {
		a, err := model.Open(dir)
		if err != nil {
			return nil, err
		}
		task := a.Manifest().Task
		if other, ok := byTask[task]; ok {
			return nil, usagef("--model %s and %s are both of task %s: a scorer takes one of each", other, dir, task)
		}
		byTask[task] = dir
		if err := s.add(a, threads); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *scored) add(a *model.Artifact, threads int) error {
	switch m := a.Manifest(); m.Task {
	case model.Demand:
		f, err := forecaster.Open(a, threads)
		if err != nil {
			return fmt.Errorf("model %s: %w", a.Dir(), err)
		}
		s.answering.Forecaster, s.answering.ForecastVersion = f, m.Version
		s.followers = append(s.followers, score.Following{Follower: f, Artifact: a})
	case model.Recommend:
		r, err := recommender.Open(a, threads)
		if err != nil {
			return fmt.Errorf("model %s: %w", a.Dir(), err)
		}
		s.answering.Recommender, s.answering.RecommendVersion = r, m.Version
		s.followers = append(s.followers, score.Following{Follower: r, Artifact: a})
	default:
		s.classifier = a
	}
	return nil
}

// until is the last instant that a follower's artifact knows of.
func (s *scored) until(f score.Following) string {
	if c := f.Artifact.Manifest().Context; c != nil {
		return datasets.FormatTime(c.Watermark)
	}
	return "no time: it carries no state"
}

// input is the columns that the models were trained on, all of them.
func (s *scored) input() (*datasets.Schema, error) {
	var all []*model.Artifact
	if s.classifier != nil {
		all = append(all, s.classifier)
	}
	for _, f := range s.followers {
		all = append(all, f.Artifact)
	}
	out := &datasets.Schema{}
	for _, a := range all {
		for _, f := range a.Manifest().Input.Fields {
			i := out.Index(f.Name)
			if i < 0 {
				out.Fields = append(out.Fields, f)
				continue
			}
			have := &out.Fields[i]
			if have.Type != f.Type || have.Scale != f.Scale {
				return nil, fmt.Errorf("the models were trained on data of different types: %s is %s in one and %s in %s; give the mapping of the events with --map or --preset, or train on one import", f.Name, have.Type, f.Type, a.Dir())
			}
			have.Nullable = have.Nullable || f.Nullable
		}
	}
	// Panels and interactions do not read the line, but without it the lines of a purchase are one event many times.
	if out.Index(datasets.Line) < 0 {
		out.Fields = append(out.Fields, datasets.Field{Name: datasets.Line, Type: datasets.Int64, Nullable: true})
	}
	return out, nil
}
