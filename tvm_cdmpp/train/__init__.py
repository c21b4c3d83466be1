"""Training, first steps onto what is new, and evaluating, on the rows of record stores."""

from typing import TYPE_CHECKING

from tvm_cdmpp.offers import offer

if TYPE_CHECKING:
    from tvm_cdmpp.train.autotuning import TRIAL_CONFIG, AutotuneSettings, autotune
    from tvm_cdmpp.train.config import Domain, TrainConfig
    from tvm_cdmpp.train.curves import keep_point, read_points
    from tvm_cdmpp.train.domains import central_moment_discrepancy, maximum_mean_discrepancy
    from tvm_cdmpp.train.evaluation import evaluate
    from tvm_cdmpp.train.features import (
        StoredFeatures,
        extract_rows,
        find_features,
        group_alike,
        load_features,
        sample_leaf_counts,
    )
    from tvm_cdmpp.train.finetuning import FINETUNE_CONFIG, finetune
    from tvm_cdmpp.train.learner import Learner
    from tvm_cdmpp.train.levels import LastLayer, LevelCorrection, LevelVariances
    from tvm_cdmpp.train.loop import Workers
    from tvm_cdmpp.train.onboarding import CurvePoint, Onboarding, keep_back
    from tvm_cdmpp.train.operators import operator_of_dag, operator_of_tasks
    from tvm_cdmpp.train.plan import Bench, OnboardSettings
    from tvm_cdmpp.train.pretraining import (
        KINDS,
        Parts,
        PretrainSettings,
        Progress,
        choose_rows,
        describe_training,
        join_experts,
        pretrain,
        pretrain_on,
    )
    from tvm_cdmpp.train.recorded import RecordedBench
    from tvm_cdmpp.train.rows import rows_of_store, sample_tasks
    from tvm_cdmpp.train.scores import Scores, bootstrap, score
    from tvm_cdmpp.train.seen import remark_on_seen
    from tvm_cdmpp.train.selection import (
        SelectionMethod,
        principal_components,
        program_features,
        select_programs,
    )
    from tvm_cdmpp.train.setting import read_setting
    from tvm_cdmpp.train.targets import (
        Target,
        TargetSettings,
        check_target,
        describe_finetuning,
        read_candidates,
        read_sources,
        read_targets,
    )

__getattr__, __dir__ = offer(__name__)
