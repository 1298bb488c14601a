package recommender

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
)

// All answers for every user that has purchases, in the order of their first; the result does not depend on threads.
// done is told how many users are answered, now and then.
func (r *Recommender) All(ctx context.Context, k int, f Filter, done func(int64)) ([]ForUser, error) {
	if err := r.refresh(r.latest()); err != nil {
		return nil, err
	}
	excluded, err := r.excluded(f)
	if err != nil {
		return nil, err
	}
	users := r.fitted.History.Users
	lists := make([]ForUser, users.Len())
	errs := make([]error, r.threads)
	var next, answered atomic.Int64
	var wg sync.WaitGroup
	var tell sync.Mutex
	for t := range r.threads {
		wg.Go(func() {
			s := r.model.NewScorer()
			own := make([]uint64, len(excluded))
			for ctx.Err() == nil && errs[t] == nil {
				u := next.Add(1) - 1
				if u >= int64(len(lists)) {
					return
				}
				copy(own, excluded)
				var items []Answer
				items, errs[t] = r.list(s, int32(u), r.model.History(int32(u)), Request{K: k, Filter: f}, own)
				lists[u] = ForUser{users.Name(int32(u)), items}
				if n := answered.Add(1); n%256 == 0 && done != nil {
					tell.Lock()
					done(n)
					tell.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return lists, errors.Join(append(errs, context.Cause(ctx))...)
}
