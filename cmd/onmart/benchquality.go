package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

//go:embed benchquality.py
var benchQualityScript string

type benchQuality struct {
	python, peers, retail, cut, device string
	keep                               string
	set                                []string
}

func newBenchQualityCmd() *cobra.Command {
	b := &benchQuality{}
	cmd := &cobra.Command{
		Use:   "recommend-quality --python FILE --peers DIR --retail DIR",
		Short: "The recommender on Online Retail beside the peers, on the same customers",
		Long: `bench recommend-quality trains a recommender on Online Retail up to --cut with the commands of this program, lists ten
items for each customer, and scores them on what was bought from --cut on beside the peers of online_retail.py: nDCG@10,
recall@10 and hits, over all items and over items new to the customer. The split and the figures are online_retail.py's;
its models have the settings that its own --grid chose on the month before the default --cut.

--retail is a folder of the data set's CSV files. --python names a Python with numpy, scipy, pandas, pyarrow and
implicit.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&b.python, "python", "python3", "Python `file` that has the peers")
	fl.StringVar(&b.peers, "peers", "../shared/bench/recommend", "`directory` of the peers' scripts")
	fl.StringVar(&b.retail, "retail", "", "`directory` of Online Retail's CSV files")
	fl.StringVar(&b.cut, "cut", "2011-10-01", "first `day` that is tested on")
	fl.StringVar(&b.device, "device", "auto", "auto, cpu or cuda[:N]")
	fl.StringVar(&b.keep, "keep", "", "`directory` to keep the model and the lists in (default: none is kept)")
	fl.StringArrayVar(&b.set, "set", nil, "a setting of train recommend, `name=value`; may be repeated")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return b.run(cmd.Context(), consoleOf(cmd)) }
	return cmd
}

// ranked is one model in one reading.
type ranked struct {
	NDCG   float64 `json:"ndcg"`
	Recall float64 `json:"recall"`
	Hit    float64 `json:"hr"`
	Users  int     `json:"users,omitempty"`
}

// benchQualityResult is what bench recommend-quality prints with --json.
type benchQualityResult struct {
	Cut  string `json:"cut"`
	Ours struct {
		All ranked `json:"all"`
		New ranked `json:"new"`
	} `json:"ours"`
	Peers []struct {
		Name   string `json:"name"`
		Params string `json:"params"`
		All    ranked `json:"all"`
		New    ranked `json:"new"`
	} `json:"peers"`
	TrainSeconds float64 `json:"train_seconds"` // of the whole command train recommend
	ListsSeconds float64 `json:"lists_seconds"` // of recommend --all for all customers, twice
}

func (b *benchQuality) run(ctx context.Context, con *console) error {
	day, err := time.Parse(time.DateOnly, b.cut)
	if err != nil {
		return usagef("--cut %s: want a day, such as 2011-10-01", b.cut)
	}
	if b.retail == "" {
		return usagef("--retail is missing: name the folder of Online Retail's CSV files")
	}
	files, err := filepath.Glob(filepath.Join(b.retail, "*.csv"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("--retail %s: no CSV files there (%v)", b.retail, err)
	}
	for _, name := range []string{"online_retail.py", "retail.py", "common.py", "models.py"} {
		if _, err := os.Stat(filepath.Join(b.peers, name)); err != nil {
			return fmt.Errorf("--peers %s: %w", b.peers, err)
		}
	}
	peers, err := filepath.Abs(b.peers)
	if err != nil {
		return err
	}
	dir := b.keep
	if dir == "" {
		if dir, err = os.MkdirTemp("", "onmart-quality"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	res := &benchQualityResult{Cut: b.cut}
	self := func(args ...string) (seconds float64, err error) {
		exe, err := os.Executable()
		if err != nil {
			return 0, err
		}
		con.notef("onmart %s", strings.Join(args, " "))
		start := time.Now()
		cmd := exec.CommandContext(ctx, exe, append([]string{"--quiet"}, args...)...)
		cmd.Stderr = con.err
		err = cmd.Run()
		return time.Since(start).Seconds(), err
	}
	if _, err := self(append([]string{"import", "--preset", "online-retail", "--force", "--out", at("retail")},
		files...)...); err != nil {
		return fmt.Errorf("import: %w", err)
	}
	train := []string{"train", "recommend", "--data", at("retail"), "--out", at("model"), "--force", "--device",
		b.device,
		"--train", ".." + day.AddDate(0, 0, -1).Format(time.DateOnly)}
	for _, s := range b.set {
		train = append(train, "--set", s)
	}
	if res.TrainSeconds, err = self(train...); err != nil {
		return fmt.Errorf("train: %w", err)
	}
	for _, list := range []struct{ file, flag string }{{"all.parquet", "--exclude-bought=false"},
		{"new.parquet", "--exclude-bought"}} {
		s, err := self("recommend", "--model", at("model"), "--all", list.flag, "--force", "--out", at(list.file))
		if err != nil {
			return fmt.Errorf("recommend: %w", err)
		}
		res.ListsSeconds += s
	}
	script := at("peers.py")
	if err := os.WriteFile(script, []byte(benchQualityScript), 0o600); err != nil {
		return err
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, b.python, "-B", script, peers, b.retail, b.cut, at("all.parquet"),
		at("new.parquet"))
	cmd.Stdout, cmd.Stderr = &out, con.err
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("the peers: %w", err)
	}
	if err := json.Unmarshal(out.Bytes(), res); err != nil {
		return fmt.Errorf("the peers printed no result: %w", err)
	}
	return con.result(res, res.print)
}

func (r *benchQualityResult) print(w io.Writer) error {
	t := newTable("from "+r.Cut+" on", "all: nDCG@10", "recall@10", "hits", "new: nDCG@10", "recall@10", "hits",
		"settings")
	row := func(name string, all, fresh ranked, params string) {
		cells := []string{name}
		for _, x := range []ranked{all, fresh} {
			cells = append(cells, fmt.Sprintf("%.4f", x.NDCG), fmt.Sprintf("%.4f", x.Recall),
				fmt.Sprintf("%.4f", x.Hit))
		}
		t.add(append(cells, params)...)
	}
	row("onmart", r.Ours.All, r.Ours.New, "")
	var best ranked
	var bestNew ranked
	for _, p := range r.Peers {
		row(p.Name, p.All, p.New, p.Params)
		if p.All.NDCG > best.NDCG {
			best = p.All
		}
		if p.New.NDCG > bestNew.NDCG {
			bestNew = p.New
		}
	}
	if err := t.write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w,
		"\n%d customers, %d of them bought something new; against the best peer of each reading %+.4f and %+.4f; training %.0f s, lists of all customers, twice, %.0f s\n",
		r.Ours.All.Users, r.Ours.New.Users, r.Ours.All.NDCG-best.NDCG, r.Ours.New.NDCG-bestNew.NDCG, r.TrainSeconds, r.ListsSeconds)
	return err
}
