"""From programs to compact ASTs."""
