"""The only door to TVM: find it, silence it, targets, logs of measured states."""
