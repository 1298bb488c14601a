// Package features is the feature spec and the engines that compute it, for backfill, replay and live.
//
// What enters: batches of transactions and labels in log order, and dimension tables that a spec joins. What leaves: one
// row of features for each transaction (Engine), one for each series and step of time (Panel), or one for each item of a
// purchase (Interactions), and a state that can be written down and taken up again. A transaction's features are
// computed from what stands before it in the log and never from what comes after it; nothing may be
// assumed about how the log is cut into batches, over how many threads a batch is computed, or how often
// the engine was stopped: the bits of the result do not depend on them.
//
// # Spec
//
// A spec is YAML, of one of three shapes: docs/FEATURES.md has all of its keys, spec.schema.json describes it for
// editors, and builtin/ has examples. Features of transactions are templates that Parse expands, so that each is one
// column of output: of the row itself (package derive computes them), over entries of a key in a window, or made of
// other features (an expr that reads them, computed last).
//
// A transaction needs a trans_id, a time, and a value in every column that its features read, unless the spec says with
// `null` what a missing one means. One without is Invalid, as is a label other than 0 or 1.
// Keys may be null.
//
// # Entries
//
// W is the greatest event time of the transactions folded so far, the current one included, in log order, and L the
// spec's lateness. An entry of a windowed feature is a folded transaction for which `where` holds; it has an instant K
// from which it counts: the event time plus the feature's shift, or for features over labels (risk, its denominator
// too) the instant when the label could be known. For an event at t, of the entries that stand before it in the log:
//
//   - a sliding window w has those with max(t, W-L)-w < K <= t;
//   - hour, day, week and month have those since the unit of the spec's zone began that t is in, up to t;
//   - last n has the n greatest in the order (K, partition, position) among K <= max(t, W-L);
//   - ever has all with K <= W.
//
// Because K = t counts, a label known at t comes before a transaction at t. Among transactions of one instant the log
// decides: each sees those that stand before it. The features of an event are read first, and the event is folded into
// the state afterwards. A feature with include_current adds the event's own value to what it read, as the newest entry,
// which folds nothing.
//
// So no feature depends on which others a spec has, and each has a fingerprint of its own (Node).
//
// # Labels
//
// A transaction counts in label features from t+delay on, with the label that is known by then, or as
// negative (0) if none is. A row that carries its label is a transaction and a label known at t+delay. A
// label that comes as an event of its own names its transaction (trans_id, and line; without a line it is
// meant for every line) and has its own instant K':
//
//   - K' <= t+delay: it takes the place of the negative; the transaction counts from K' on.
//   - K' > t+delay: the negative counts in [t+delay, K') and the label from K' on, in the window that ends
//     at K'+w.
//   - Several labels form a chain in the order (K', partition, position); the last with K' <= t counts.
//
// A label for a transaction that has not been seen waits for it. A label known later than
// t+delay+accept_for, or earlier than t-accept_for, is not applied (LabelExpired).
//
// # Late, twice, and from the future
//
// A transaction with t < W-L is Late: computed and folded like any other and counted, or, where the spec says so,
// neither (LateSkipped). Where a spec declares duplicates, a second copy of (trans_id, line) within that time is a
// Duplicate. A transaction far ahead of W (90 days, if the spec does not say otherwise) is set aside (FutureEvent), since
// one wrong clock would end every window; a second one in a row of about that time is believed. All of these are decided
// by the log alone, so that backfill and live agree.
//
// # What is forgotten
//
// An entry that no window will reach, with K <= W-L-w for the longest window w of its group, may be dropped at any time
// and nobody can tell. Recent events themselves are kept for labels and duplicates while T+delay+accept_for >= W-H, H
// being the longest window over labels plus L. What an engine holds is a function of the set of folded events, whatever
// the order in which partitions came, but for three things that follow the order of the log: an ewma, a risk over
// `ever` whose labels come after their records were dropped, and what was set aside. A snapshot has equal bytes for
// equal states: keys are in the order of their values, entries in that of (K, partition, position).
//
// # Numbers
//
// Sums are integers in the declared scale of their column (amounts: 1e-4), sums of squares integers in its square, and
// divided once: a mean is float64(sum) / (float64(n) * 10^scale). They are held as 64 and 128 bits, and made again in more
// where these might not be enough. Amounts were rounded to that scale when they were imported, and rounded nowhere else.
// Naive has every kind's definition in plain code; docs/FEATURES.md has the formulas and what is given where a window is
// empty.
//
// # Panels and interactions
//
// W is the watermark as above, and L the spec's lateness. A step [s, e) of a panel is over when e <= W-L; its
// transactions are then put into the order (event time, partition, position), told apart into sales, returns and pairs
// that undo each other, and summed in one pass; nothing is accumulated before. A transaction whose step is over is Late
// and not folded. So a row of a panel is a function of the set of transactions that were on time. A series begins with
// the first step that has a row for demand, and has rows from there on. Values that are carried on (a last price,
// lags) are part of the state, with the transactions of the steps that are not over. Interactions take lines in the
// same order once W-L has passed them.
//
// Sums of whole numbers are made in 128 bits and divided once. Sums of floating point, which only a column of that
// type has, are made in the canonical order.
//
// # How it runs
//
// A group is the features with the same key, shift and filter: they read the same entries. For each key a group has a
// head of a few words, and where windows end a ring of entries, which is an array in the order (K, partition, position)
// whose sums are prefix sums, so that a window costs two reads; all of it lies in a slab.Arena. A batch goes through
// Process in passes: columns of joins and row features; numbers of keys; one sequential pass that decides what each row
// is and resolves labels; then the groups. Rows are packed and sorted by key, each key's rows are visited together, and
// the features are brought back into the order of the rows. Threads share the keys, and nothing depends on how.
//
// # What is not obvious
//
//   - Inside a ring, entries carry exclusive prefix sums that may wrap around; their differences are exact
//     modulo 2^64, and the bound on their size says when that is enough.
//   - Cursors into a ring are hints: every read moves them to their exact places from wherever they are.
//   - Rows of a key that stand in order are entered first and read afterwards (smooth.go): what stands behind a row in
//     the ring is not in its windows. Late rows and those that labels change in between go one by one (read.go).
//   - Rings of transactions are only appended to (but for late arrivals). What label events change stands
//     beside them, as entries put in and taken out. Of these, the ones that are replaced later
//     (a label after the delay, or a second one) are gone through one by one on each read of their key:
//     cheap for the few they are meant to be, dear where every label of a busy key comes after the delay.
//   - A group without windows that end has no rings: accumulators alone.
//   - A log that was recorded from a running engine has that engine's state beside it (StartStateFile); a
//     duplicate takes no position, so that the log and the engine that wrote it count alike.
//   - A backfill that leaves no state keeps no record of events (withoutState).
//   - A key that shows in nothing any more loses its number, which is given to another (sweep.go): a few keys are looked at
//     after each batch.
//   - The steps of a Grid follow the clock: a day has 23 or 25 hours where clocks change, and a date that the clock
//     shows again after midnight, because it was put back, stays with the day that had begun.
//   - A panel's joined tables are part of its Plan and of the plan's fingerprint, not of its nodes: a state can be
//     taken up with a newer calendar.
//   - A transaction whose key is null (a purchase without a card) sees empty windows and is folded nowhere
//     under that key.
package features
