"""The training loop."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.train.features import (
        extract_rows,
        find_features,
        group_alike,
        load_features,
        sample_leaf_counts,
    )
    from tvm_cdmpp.train.loop import TrainConfig, Workers
    from tvm_cdmpp.train.operators import operator_of_tasks
    from tvm_cdmpp.train.pretrain import (
        KINDS,
        PretrainSettings,
        Progress,
        describe_training,
        join_experts,
        pretrain,
    )
    from tvm_cdmpp.train.rows import rows_of_store

__getattr__, __dir__ = offer(__name__)
