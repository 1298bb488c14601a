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
// A spec is YAML, of one of three shapes: docs/FEATURES.md has all of its keys. One of features of transactions has
// name, timezone, label (column, delay, accept_for), lateness, keep and features. Each feature is a template with a name, a kind and, where the kind has it, of, key, windows, shift and
// include_current; it gives one column for each window, with {w} and {n} in its name replaced. log, unit and
// words are for models and people. spec.schema.json describes it for editors, and builtin/ has examples.
//
// A transaction needs a value in every column that a value, sum or mean is of, a trans_id and a time; one
// without is Invalid, as is a label other than 0 or 1. Keys may be null.
//
// # Entries
//
// Every windowed feature is a count or a sum over entries. An entry has an instant K from which it counts
// and an integer value. For counts, sums and means over transactions K is the event time plus the feature's
// shift. For features over labels (risk, its denominator too) K is when the label could be known. An entry
// counts for an event at time t when t-w < K <= t. Because K = t counts, a label known at t comes before a
// transaction at t. Among transactions of one instant the log decides: each sees those that stand before it.
//
// The features of an event are read first, and the event is folded into the state afterwards. A feature
// with include_current adds the event's own value to what it read, which folds nothing.
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
// t+delay+accept_for, or earlier than t-accept_for, is not applied (LabelExpired). What an engine holds is
// therefore a function of the set of events and not of the order in which they came.
//
// # What is forgotten
//
// W is the greatest event time of the transactions up to and including the current one, in log order. H is
// the longest window of the spec plus its lateness. An entry is visible only while K > W-H. An entry that is
// not visible can never be visible again, so that it may be dropped from memory at any time and nobody can
// tell. A transaction with t < W-lateness is Late: it is computed and folded like any other, counted, and
// may miss entries beyond H. Recent events themselves (transactions and labels) are kept while
// T > W-H-retain, T being t or K' and retain the greater of the longest shift and delay+accept_for: past
// that neither a label nor a duplicate can make a difference to anything visible. Everything else in memory
// is computed from these events, and a snapshot is these events in the order (T, partition, position).
//
// # Numbers
//
// Sums are integers in the declared scale of their column (amounts: 1e-4) and divided once: a mean is
// float64(sum) / (float64(n) * 10^scale). Amounts were rounded to that scale when they were imported, and
// rounded nowhere else. A sum that might leave 64 bits is done again in arbitrary precision. A window
// without entries has count, sum, mean and risk 0.
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
// # What is not obvious
//
//   - Inside a ring, entries carry exclusive prefix sums that may wrap around; their differences are exact
//     modulo 2^64, and the bound on their size says when that is enough.
//   - Cursors into a ring are hints: every read moves them to their exact places from wherever they are.
//   - Rings of transactions are only appended to (but for late arrivals). What label events change stands in
//     a small ring beside them, as entries put in and taken out. Of these, the ones that are replaced later
//     (a label after the delay, or a second one) are gone through one by one on each read of their key:
//     cheap for the few they are meant to be, dear where every label of a busy key comes after the delay.
//   - A batch is computed shard by shard even on one thread, because the rings of a shard fit a core's cache.
//   - A log that was recorded from a running engine has that engine's state beside it (StartStateFile); a
//     duplicate takes no position, so that the log and the engine that wrote it count alike.
//   - The index from trans_id to recent events is built when first needed, by a label event or by
//     DetectDuplicates; backfill of rows that carry their labels does not pay for it.
//   - The steps of a Grid follow the clock: a day has 23 or 25 hours where clocks change, and a date that the clock
//     shows again after midnight, because it was put back, stays with the day that had begun.
//   - A panel's joined tables are part of its Plan and of the plan's fingerprint, not of its nodes: a state can be
//     taken up with a newer calendar.
//   - A transaction whose key is null (a purchase without a card) sees empty windows and is folded nowhere
//     under that key.
package features
