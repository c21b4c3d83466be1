"""Plots and pages from results; nothing here prints."""
