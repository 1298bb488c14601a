// Package recommender answers what a user is likely to want next, and what goes with a basket, from an artifact alone:
// purchases, items that are bought together, factors, a program that makes users' vectors, and the weights that
// blend them.
//
// What enters: an artifact of task recommend, or the parts of one while it is trained; then transactions, in the order
// of the log, or rows of interactions. What leaves: lists of items, best first, with the reason for each. It may not
// be assumed that a user is known: one is scored by what was bought, so that a list of recent items is enough, and
// without any the answer is what sells now. Users and items that came after training are known by their purchases.
//
// In the order of processing: history.go numbers users, items and purchases, model.go is what a training found out,
// files.go reads and writes it, network.go runs the program, recommender.go answers, state.go keeps what came after
// training.
package recommender
