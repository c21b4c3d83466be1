"""Evolution of programs as transform steps, without TVM between a parent and its children.

programs    programs as skeletons and numbers, in and out of steps
structure   where else a stage may be computed, what else may be parallel or a vector
mutation    other numbers: lengths of tiles, unroll limits, those of two parents
space       the programs of one task: described and checked without TVM, made into states by it
evolution   generations, and the descent at the end
choice      what to measure of what was found, and whether another round would gain anything
policy      all of it as a search policy
"""
