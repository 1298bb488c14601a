package baseline

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/sjwhitworth/golearn/base"
)

// grid copies columns into golearn's instances, straight into the storage of one attribute group: golearn's
// own Set costs a check and a copy of eight bytes a cell. The last column is the class attribute.
func grid(columns [][]float64, rows []int) (*base.DenseInstances, error) {
	const group = "all"
	d := base.NewDenseInstances()
	if err := d.CreateAttributeGroup(group, 8); err != nil {
		return nil, err
	}
	var last *base.FloatAttribute
	for c := range columns {
		last = base.NewFloatAttribute(fmt.Sprintf("f%d", c))
		if _, err := d.AddAttributeToAttributeGroup(last, group); err != nil {
			return nil, err
		}
	}
	if err := d.AddClassAttribute(last); err != nil {
		return nil, err
	}
	if err := d.Extend(len(rows)); err != nil {
		return nil, err
	}
	g, err := d.GetAttributeGroup(group)
	if err != nil {
		return nil, err
	}
	cells := g.(*base.FixedAttributeGroup).Storage()
	for c, column := range columns {
		for k, i := range rows {
			binary.NativeEndian.PutUint64(cells[8*(k*len(columns)+c):], math.Float64bits(column[i]))
		}
	}
	return d, nil
}

// everyRow is 0..n-1.
func everyRow(n int) []int {
	rows := make([]int, n)
	for i := range rows {
		rows[i] = i
	}
	return rows
}
