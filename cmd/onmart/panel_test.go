package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
)

const shopLines = `trans_id,trans_datetime,user_id,store_id,product_id,quantity,unit_price,amount,is_return
1,2026-03-02 09:00:00,u1,s1,lamp,2,10,20,0
1,2026-03-02 09:00:00,u1,s1,rug,1,50,50,0
2,2026-03-02 10:00:00,u2,s1,lamp,5,10,50,0
3,2026-03-02 11:00:00,u2,s1,lamp,-5,10,-50,1
4,2026-03-04 09:00:00,u3,s1,lamp,1,11,11,0
5,2026-03-05 09:00:00,u1,s1,rug,-1,50,-50,1
`

const shopPanel = `name: small
panel:
  keys: [product_id]
  step: day
  returns: {flag: is_return, undo: [user_id]}
  demand: {of: quantity}
  measures:
    - {name: returned, rows: returned, of: quantity}
  covariates:
    - {name: price, kind: last, of: unit_price}
`

// A panel and interactions from a CSV to inspect, as a user makes them.
func TestPanelAndInteractions(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "lines.csv", shopLines)
	testkit.WriteFile(t, dir, "panel.yaml", shopPanel)
	testkit.WriteFile(t, dir, "baskets.yaml", "name: baskets\nlateness: 0s\ninteractions:\n  user: user_id\n  item: product_id\n  returns: {flag: is_return}\n")
	for _, c := range []struct {
		args string
		code int
		want string // of stdout, or of stderr
	}{
		{"import --preset canonical --out tx lines.csv", 0, "^tx: 6 transactions"},
		{"features --spec ./panel.yaml --in tx --out panel", 0, "^panel: a panel of small, 2 series by 4 steps of a day, 8 rows, 2026-03-02T00:00:00Z to 2026-03-05T00:00:00Z\n" +
			"  6 rows folded at .*\n  the data end inside the last step, which begins at 2026-03-05T00:00:00Z: give --range to leave it out\n  1 sales were undone by a return\n$"},
		{"features --spec ./panel.yaml --in tx --out part --range 2026-03-03..2026-03-04", 0, "^part: a panel of small, 2 series by 2 steps of a day, 4 rows"},
		{"features --spec ./panel.yaml --in tx --out panel", 1, "panel exists already: give --force"},
		{"features --spec ./panel.yaml --in tx --out panel --force", 0, "^panel: a panel"},
		{"features --spec ./baskets.yaml --in tx --out panel --force", 2, "--out: panel holds a panel, and here --force replaces interactions only"},
		{"features --spec ./baskets.yaml --in tx --out baskets", 0, "^baskets: 4 interactions of baskets, .*\n.*\n  2 returns were left out or undid a purchase\n$"},
		{"features --spec shop-daily --in tx --out x", 1, "calendar.parquet is missing: the spec shop-daily joins the table calendar"},
		{"features --spec ./panel.yaml --in panel --out x", 1, "panel holds panel: features are computed of transactions or a log"},
		{"features --spec ./panel.yaml --in tx --out x --delay 7d", 2, "has no label, so that no delay can be set"},
		{"inspect panel", 0, `(?s)panel is a panel, and whole.*a panel of small: 2 series of product_id by 4 steps of a day \(UTC\), seasons 7.*known up to now +price` +
			`.*demand +4 in all; 62 % of the rows are 0.*demand of all series, 1 day a column:\n█ ▃ \n.*\nlamp +3 +0.75 +50 % +█ ▄ *\nrug +1 +0.25 +75 % +█ *\n$`},
		{"inspect baskets", 0, `(?s)interactions of baskets: 3 users \(user_id\), 2 items \(product_id\), 4 different pairs.*\nlamp +3 +3\nrug +1 +1\n$`},
	} {
		code, stdout, stderr := cli(t, append(strings.Fields(c.args), "-q")...)
		if code != c.code || !regexp.MustCompile(c.want).MatchString(map[bool]string{true: stdout, false: stderr}[code == 0]) {
			t.Errorf("onmart %s: exit %d\n%s%s\nwant %d\n%s", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
	_, stdout, _ := cli(t, "inspect", "panel", "--json")
	var report struct {
		Kind  string
		Panel struct {
			Series, Steps int
			Demand        float64
			Largest       []struct{ Series string }
		}
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || report.Kind != "panel" || report.Panel.Series != 2 || report.Panel.Steps != 4 ||
		report.Panel.Demand != 4 || report.Panel.Largest[0].Series != "lamp" {
		t.Errorf("%v, %s", err, stdout)
	}
}

// Wide files from the command line, and the flags that do not go together.
func TestImportWide(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "sales.csv", "item,d1,d2,d3,d4\n\"lamp\",3,0,2,5\n\"rug\",1,,4\n")
	testkit.WriteFile(t, dir, "later.csv", "item,d1,d2\nlamp,4,4.55555\nrug,2,2\n")
	testkit.WriteFile(t, dir, "wide.yaml", "name: wide\npanel:\n  keys: [product_id]\n  step: day\n  demand: {of: value}\n")
	testkit.WriteFile(t, dir, "lines.csv", shopLines)
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"import --wide --start 2026-03-02 --step day --out series sales.csv", 0, "^series: 6 transactions, 2026-03-02T00:00:00Z to 2026-03-05T00:00:00Z\n  1 values are missing inside series\n$"},
		{"import --wide --start 2026-03-02 --step day --after series --out later later.csv", 0, "^later: 4 transactions, 2026-03-05T00:00:00Z to 2026-03-07T00:00:00Z\n  1 values had more decimals"},
		{"import --wide --start 2026-03-02 --step day --out both sales.csv later.csv --scale 5", 0, "^both: 10 transactions, 2026-03-02T00:00:00Z to 2026-03-07T00:00:00Z\n  1 values are missing"},
		{"features --spec ./wide.yaml --in both --out panel", 0, "^panel: a panel of wide, 2 series by 6 steps of a day, 12 rows"},
		{"import --wide --out x sales.csv", 2, "--wide needs --start, the time of the first value, and --step"},
		{"import --wide --start now --step day --out x sales.csv", 2, `start "now": want a date or time`},
		{"import --wide --start 2026-01-01 --step month --out x sales.csv", 2, `step "month": want hour, day, week`},
		{"import --wide --start 2026-01-01 --step day --align left --out x sales.csv", 2, "--align left: want start or end"},
		{"import --wide --start 2026-01-01 --step day --scale 12 --out x sales.csv", 2, "scale 12: want the digits"},
		{"import --wide --start 2026-01-01 --step day --timezone Mars --out x sales.csv", 2, `--timezone "Mars": want the name of a zone`},
		{"import --wide --start 2026-01-01 --step day --series shop --out x sales.csv", 1, "the header lacks shop"},
		{"import --wide --preset canonical --out x sales.csv", 2, "--wide stands in place of --map and --preset"},
		{"import --preset canonical --start 2026-01-01 --out x lines.csv", 2, "--start is for --wide; a mapping says it under wide"},
		{"import --preset canonical --after series --out x lines.csv", 2, "--after is for files with a series on each row"},
		{"import --wide --start 2026-01-01 --step day --after none --out x sales.csv", 1, "none: no such file"},
		{"import --preset m4-hourly --out x sales.csv", 1, "the header lacks V1"},
	} {
		code, stdout, stderr := cli(t, append(strings.Fields(c.args), "-q")...)
		if code != c.code || !regexp.MustCompile(c.want).MatchString(map[bool]string{true: stdout, false: stderr}[code == 0]) {
			t.Errorf("onmart %s: exit %d\n%s%s\nwant %d\n%s", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
}
