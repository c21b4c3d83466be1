"""What a program looks like to a predictor: leaves, compact ASTs, batches, positions."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.ast.compact import (
        CompactASTBatch,
        concatenate,
        dense_mask,
        densify,
        positional_encoding,
        program_vectors,
    )
    from tvm_cdmpp.ast.leaf import LOOP_KINDS, OP_CLASSES, SCOPES, Access, Leaf, Loop
    from tvm_cdmpp.ast.schema import (
        ACCESS_SLOTS,
        COLUMN,
        COUNTED,
        COUNTED_COLUMNS,
        FIELDS,
        GROUPS,
        NUM_FIELDS,
        NUM_INNER_LOOPS,
        SCHEMA_VERSION,
        TRAFFIC_CAPACITIES_BYTES,
    )

__getattr__, __dir__ = offer(__name__)
