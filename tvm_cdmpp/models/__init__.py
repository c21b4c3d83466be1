"""Predictors of a program's latency."""
