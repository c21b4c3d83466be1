"""Operators as `te` tensors, search tasks made of them, and states drawn from these.

Benchmarks and tests share them. Shapes are small but realistic; some extents are prime, so that
splits do not divide.
"""
