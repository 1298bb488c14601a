// Package train is what every task shares: the training loop with its early stopping, checkpoints and
// progress, and the metrics.
//
// A lowered model (program.Set) and its bound data enter; trained weights leave. It knows no task and no
// model; the machine is a program.Backend that the caller chose. It may not be assumed that a training
// ran in one process: state that matters is in the checkpoint.
package train
