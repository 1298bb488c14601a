package features
import ("io";"errors")
func (q *Panel) Snapshot(w io.Writer) error { return errors.New("todo") }
func (q *Panel) Restore(r io.Reader) error { return errors.New("todo") }
func (e *Interactions) Snapshot(w io.Writer) error { return errors.New("todo") }
func (e *Interactions) Restore(r io.Reader) error { return errors.New("todo") }
