// Package ranking finds the items that a user is most likely to want next, and finds the best of many scored items
// exactly.
//
// What enters are interactions: a Matrix of users by items whose values say how often or how strongly a user chose
// an item, and, for methods that know time, the instants of the purchases. Users and items are numbered from 0 by
// whoever made the matrix; names, prices and stock are the caller's. What leaves are lists of Scored items, best
// first, and models that can score: factors (ALS), item-item weights, a user's own history.
//
// What may be relied on: every result has the same bits for any number of threads, for one user or a batch, and
// for each instruction path (the environment variable ONMART_CPU, "avx2" or "portable", forces one). Equal scores are
// ordered by the lower item number. Filters are applied before the best k are chosen, so that k items come back
// whenever k are left.
//
// What may not be assumed: that scores of two methods have one scale; that a score is a probability; that a
// function keeps a slice handed to it only for the duration of the call, unless its comment says that it copies.
//
// The package imports nothing of Onmart but the random numbers of train/program.
package ranking
