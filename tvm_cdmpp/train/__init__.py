"""Training and evaluating: features and rows of record stores, predictions, scores."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.train.evaluation import evaluate
    from tvm_cdmpp.train.features import (
        extract_rows,
        find_features,
        group_alike,
        load_features,
        sample_leaf_counts,
    )
    from tvm_cdmpp.train.operators import operator_of_tasks
    from tvm_cdmpp.train.rows import rows_of_store, sample_tasks
    from tvm_cdmpp.train.scores import Scores, bootstrap, score

__getattr__, __dir__ = offer(__name__)
