"""`CDMPPModel` on real tasks and states; latencies follow a rule, except in one real search."""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import spearmanr

from benchmarks.workloads import edges, sparse
from benchmarks.workloads.matrix import matmul_layout_free
from tests.extract import sampling
from tvm_cdmpp.ast.compact import CompactASTBatch
from tvm_cdmpp.devices.calibration import DeviceCalibration, Levels
from tvm_cdmpp.devices.detect import find_device
from tvm_cdmpp.devices.spec import DeviceSpec
from tvm_cdmpp.errors import CheckpointError, ConfigError, RecordError, UnknownDeviceError
from tvm_cdmpp.extract.extractor import StepExtractor
from tvm_cdmpp.extract.handover import dump_records
from tvm_cdmpp.models import checkpoint
from tvm_cdmpp.models.fitting import FitConfig
from tvm_cdmpp.models.network import PredictorConfig
from tvm_cdmpp.models.predictor import Predictor
from tvm_cdmpp.models.rows import TrainingRows
from tvm_cdmpp.models.trained import TrainedPredictor
from tvm_cdmpp.models.weights import load_weights
from tvm_cdmpp.search import memory, online
from tvm_cdmpp.search.cost_model import CDMPPModel

auto_scheduler = sampling.auto_scheduler
Floats = npt.NDArray[np.float64]

COMPILE_ERROR, RUNTIME_ERROR, BUILD_TIMEOUT, RUN_TIMEOUT = 2, 4, 6, 7
DEVICE = DeviceSpec(name="test", kind="cpu", cores=4)
QUICK = FitConfig(steps=10)


@dataclass(frozen=True)
class Sample:
    """A task with states, and latencies by a rule that the analytic estimate does not know."""

    task: Any
    states: list[Any]
    latencies_s: Floats

    def __len__(self) -> int:
        return len(self.states)

    def part(self, first: int, last: int) -> Sample:
        return Sample(self.task, self.states[first:last], self.latencies_s[first:last])

    @property
    def inputs(self) -> list[Any]:
        return [auto_scheduler.MeasureInput(self.task, state) for state in self.states]

    @property
    def results(self) -> list[Any]:
        return [result(latency_s) for latency_s in self.latencies_s]


def result(latency_s: float, error: int = 0) -> Any:
    """Make a result; TVM reports a cost of 1e10 s for what failed."""
    # Few digits, so that logs hold them exactly.
    costs = [1e10] if error else [float(f"{x * latency_s:.3g}") for x in (0.9, 1.1)]
    return auto_scheduler.MeasureResult(costs, error, "", 0.1, 1.0)


def means_s(sample: Sample) -> list[float]:
    """The latencies as they are learned: the mean of the costs."""
    return [float(np.mean([float(c) for c in one.costs])) for one in sample.results]


def sample(task: Any, count: int) -> Sample:
    states = sampling.sample_states(task, count, seed=11)
    unroll = np.array([unroll_limit(task, state) for state in states])
    noise = np.random.default_rng(1).lognormal(0, 0.05, len(states))
    return Sample(task, states, 1e-3 / np.log2(2 + unroll) ** 1.5 * noise)


def unroll_limit(task: Any, state: Any) -> int:
    line = auto_scheduler.measure_record.dump_record_to_string(
        auto_scheduler.MeasureInput(task, state), result(1.0)
    )
    pragmas = [step[3] for step in json.loads(line)["i"][1][1] if step[0] == "PR"]
    return max((int(pragma.split("$")[1]) for pragma in pragmas), default=0)


@pytest.fixture(scope="module")
def matmul() -> Sample:
    return sample(sampling.make_task(sampling.matmul, args=(64, 64, 64)), 96)


@pytest.fixture(scope="module")
def conv() -> Sample:
    return sample(sampling.make_task(sampling.conv2d_1x1), 32)


def new_model(seed: int = 0, fit_config: FitConfig = QUICK) -> CDMPPModel:
    return CDMPPModel(seed, device=DEVICE, weights=None, fit_config=fit_config)


def rows_of(model: CDMPPModel) -> TrainingRows:
    return model._online.memory.rows


def scores_of(model: CDMPPModel, sample: Sample) -> Floats:
    scores = model.predict(sample.task, sample.states)
    assert all(isinstance(score, float) for score in scores)
    return np.array(scores)


def agreement(model: CDMPPModel, sample: Sample) -> float:
    """Rank correlation of scores and speeds, best 1."""
    return float(spearmanr(scores_of(model, sample), -sample.latencies_s).statistic)


def learn(model: CDMPPModel, *samples: Sample) -> CDMPPModel:
    inputs = [item for sample in samples for item in sample.inputs]
    results = [item for sample in samples for item in sample.results]
    model.update(inputs, results)
    return model


def test_first_scores_are_positive_and_come_from_the_estimate(matmul: Sample, conv: Sample) -> None:
    model = new_model()
    for sample in (matmul, conv):
        scores = scores_of(model, sample)
        assert scores.shape == (len(sample),)
        assert np.isfinite(scores).all()
        assert (scores > 0).all()
        assert len(set(scores)) > len(sample) // 2
        np.testing.assert_array_equal(scores_of(model, sample), scores)
        np.testing.assert_allclose(scores_of(new_model(seed=5), sample), scores, rtol=1e-5)
    assert model.num_unscored == 0


def test_no_states(matmul: Sample) -> None:
    model = new_model()
    assert model.predict(matmul.task, []) == []
    model.update([], [])
    assert len(model.predict(matmul.task, matmul.states[:2])) == 2


@dataclass
class Work:
    """Programs that were extracted and scored, call by call."""

    extracted: list[int] = field(default_factory=list)
    scored: list[int] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def clear(self) -> None:
        self.extracted.clear()
        self.scored.clear()


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    done = Work()
    extract, predict = StepExtractor.extract_checked, Predictor.predict

    def count_extracted(extractor: StepExtractor, records: bytes) -> Any:
        done.extracted.append(len(records.splitlines()))
        return extract(extractor, records)

    def count_scored(
        predictor: Predictor, batch: CompactASTBatch, device: DeviceSpec, *, num_threads: int = 1
    ) -> Any:
        done.scored.append(len(batch))
        done.threads.add(num_threads)
        return predict(predictor, batch, device, num_threads=num_threads)

    monkeypatch.setattr(StepExtractor, "extract_checked", count_extracted)
    monkeypatch.setattr(Predictor, "predict", count_scored)
    return done


def test_a_program_is_scored_once_until_the_next_update(matmul: Sample, work: Work) -> None:
    model = new_model()
    few, more = matmul.states[:8], matmul.states[:12]
    first = model.predict(matmul.task, few + few[::-1] + few[:1])
    assert work == Work([8], [8], {1})
    assert first[8:16] == first[:8][::-1]
    assert first[16] == first[0]
    # TVM hands the same programs over as other objects.
    copies = [item.state for item in matmul.part(0, 8).inputs]
    assert model.predict(matmul.task, copies) == first[:8]
    assert work == Work([8], [8], {1})
    # Of a call with old and new ones, only the new ones are work.
    assert model.predict(matmul.task, more[::-1])[::-1][:8] == first[:8]
    assert work == Work([8, 4], [8, 4], {1})

    learn(model, matmul.part(20, 40))
    work.clear()
    again = model.predict(matmul.task, more)
    assert work == Work([12], [12], {1})
    assert again[:8] != first[:8]
    # So is a single failure.
    model.update(matmul.part(0, 1).inputs, [result(1.0, RUN_TIMEOUT)])
    work.clear()
    model.predict(matmul.task, more)
    assert work == Work([12], [12], {1})


def test_tasks_do_not_share_scores(matmul: Sample, conv: Sample, work: Work) -> None:
    model = new_model()
    alone = scores_of(model, matmul.part(0, 8))
    scores_of(model, conv.part(0, 8))
    np.testing.assert_array_equal(scores_of(model, matmul.part(0, 8)), alone)
    assert work.extracted == [8, 8]


def test_company_changes_no_score(matmul: Sample, tmp_path: Path) -> None:
    model = learn(new_model(), matmul.part(0, 48))
    model.save(str(tmp_path / "m"))
    together = scores_of(model, matmul)
    for first, last in ((0, 1), (5, 6), (40, 96)):
        model.load(str(tmp_path / "m"))  # forgets the scores
        alone = scores_of(model, matmul.part(first, last))
        np.testing.assert_allclose(alone, together[first:last], rtol=1e-5)


def test_scores_to_remember_are_limited(
    matmul: Sample, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MAX_SCORES", 20)
    model = new_model()
    expected = scores_of(new_model(), matmul)
    work.clear()
    for _ in range(3):
        for first in range(0, 96, 8):
            np.testing.assert_allclose(
                scores_of(model, matmul.part(first, first + 8)), expected[first : first + 8],
                rtol=1e-5,
            )  # fmt: skip
            (entry,) = model._online.memory._tasks.values()
            assert len(entry.scores) <= 20 + 8
    assert sum(work.extracted) == 3 * 96


def test_threads_for_scoring(matmul: Sample, work: Work) -> None:
    expected = scores_of(new_model(), matmul)
    assert work.threads == {1}
    several = CDMPPModel(0, device=DEVICE, weights=None, num_threads=2)
    np.testing.assert_allclose(scores_of(several, matmul), expected, rtol=1e-5)
    assert work.threads == {1, 2}
    with pytest.raises(ConfigError, match="num_threads must be at least 1; got 0"):
        CDMPPModel(num_threads=0)


@pytest.fixture
def broken(matmul: Sample, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Numbers of states whose records cannot be analysed: their first step is unknown."""
    numbers = [2, 5]
    broken_states = [matmul.states[n] for n in numbers]
    lines = dump_records(matmul.task, broken_states).splitlines()

    def dump_broken(task: Any, states: Sequence[Any]) -> bytes:
        found = dump_records(task, states).splitlines()
        return b"\n".join(
            line.replace(b'[[], [["', b'[[], [["?') if line in lines else line for line in found
        )

    for module in (memory, online):
        monkeypatch.setattr(module, "dump_records", dump_broken)
    yield numbers


def test_programs_that_cannot_be_analysed(
    matmul: Sample, broken: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    model = new_model()
    scores = scores_of(model, matmul.part(0, 16))
    assert model.num_unscored == len(broken)
    assert "2 programs could not be used; record 3: " in caplog.text
    assert np.flatnonzero(scores < 1e-5).tolist() == broken
    assert (scores > 0).all()
    others = np.delete(np.arange(16), broken)
    alone = model.predict(matmul.task, [matmul.states[n] for n in others])
    np.testing.assert_array_equal(alone, scores[others])
    scores_of(model, matmul.part(0, 16))
    assert model.num_unscored == len(broken), "counted once"

    # Nothing can be learned from them, but from the others of their batch.
    learn(model, matmul.part(0, 16))
    assert model.num_unscored == 2 * len(broken)
    fewer = new_model()
    fewer.update(
        [matmul.inputs[n] for n in others], [result(matmul.latencies_s[n]) for n in others]
    )
    np.testing.assert_array_equal(
        scores_of(model, matmul.part(16, 32)), scores_of(fewer, matmul.part(16, 32))
    )


def test_nothing_but_programs_that_cannot_be_analysed(matmul: Sample, broken: list[int]) -> None:
    model = new_model()
    states = [matmul.states[n] for n in broken]
    assert model.predict(matmul.task, states) == [1e-6, 1e-6]
    model.update([matmul.inputs[n] for n in broken], [result(1.0)] * 2)
    assert np.isfinite(scores_of(model, matmul)).all()


def test_update_learns_what_was_measured(matmul: Sample) -> None:
    model = new_model(fit_config=FitConfig())
    train, test = matmul.part(0, 64), matmul.part(64, 96)
    before = agreement(model, test)
    learn(model, train)
    after = scores_of(model, test)
    assert before < 0.7
    assert agreement(model, train) > 0.9
    assert agreement(model, test) > 0.8
    # Scores are 1 / seconds.
    assert np.median(abs(after * test.latencies_s - 1)) < 0.35


def test_several_tasks_share_a_model(matmul: Sample, conv: Sample) -> None:
    """A task scheduler updates task by task; one batch may also hold several."""
    apart, mixed = new_model(fit_config=FitConfig()), new_model(fit_config=FitConfig())
    for first in (0, 16):
        learn(apart, matmul.part(first, first + 16))
        learn(apart, conv.part(first, first + 16))
    interleaved = np.random.default_rng(0).permutation(64)
    inputs = [*matmul.part(0, 32).inputs, *conv.inputs]
    results = [*matmul.part(0, 32).results, *conv.results]
    mixed.update([inputs[n] for n in interleaved], [results[n] for n in interleaved])
    for model in (apart, mixed):
        assert agreement(model, matmul.part(0, 32)) > 0.8
        assert agreement(model, conv) > 0.8


def test_programs_are_ranked_within_their_task(matmul: Sample, conv: Sample) -> None:
    """Every row has the number of its task, in whatever order records come."""
    slow = Sample(conv.task, conv.states, conv.latencies_s * 1e3)
    order = np.random.default_rng(0).permutation(64)
    inputs = [*matmul.part(0, 32).inputs, *slow.inputs]
    results = [*matmul.part(0, 32).results, *slow.results]
    model = new_model()
    model.update([inputs[n] for n in order], [results[n] for n in order])
    rows = rows_of(model)
    of_conv = rows.latencies_s > 5e-3
    assert of_conv.sum() == 32
    assert len(set(rows.tasks[of_conv])) == len(set(rows.tasks[~of_conv])) == 1
    assert set(rows.tasks) == {0, 1}


def test_layouts_of_one_workload_are_tasks_of_their_own() -> None:
    """In one batch, too: the programs of the other layout have other leaves."""
    mixed, apart = new_model(), new_model()
    options = auto_scheduler.LayoutRewriteOption
    samples = [
        sample(sampling.make_task(matmul_layout_free, layout=layout), 8)
        for layout in (options.NO_REWRITE, options.REWRITE_FOR_PRE_TRANSFORMED)
    ]
    learn(mixed, *samples)
    for one in samples:
        learn(apart, one)
    assert set(rows_of(mixed).tasks) == {0, 1}
    both, single = rows_of(mixed), rows_of(apart)
    np.testing.assert_array_equal(both.tasks, single.tasks)
    np.testing.assert_array_equal(both.batch().vectors, single.batch().vectors)


def test_one_seed_one_sequence(matmul: Sample) -> None:
    def sequence(seed: int) -> list[Floats]:
        model, found = new_model(seed), []
        for first in (0, 16):
            learn(model, matmul.part(first, first + 16))
            np.random.rand()  # noqa: NPY002 - whatever else happens in the process
            found.append(scores_of(model, matmul))
        return found

    first, again, other = sequence(0), sequence(0), sequence(1)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).any()
    assert (first[0] != first[1]).any()


def test_failures_are_counted_and_not_measured_again(matmul: Sample) -> None:
    model = new_model()
    errors = [COMPILE_ERROR, RUNTIME_ERROR, BUILD_TIMEOUT, RUN_TIMEOUT, *[0] * 16]
    measured = matmul.part(0, len(errors))
    results = [result(s, e) for s, e in zip(measured.latencies_s, errors, strict=True)]
    model.update(measured.inputs, results)
    assert model.num_failed == 4
    scores = scores_of(model, matmul)
    known = [n for n, state in enumerate(matmul.states) if str(state) in
             {str(matmul.states[0]), str(matmul.states[1])}]  # fmt: skip
    assert np.flatnonzero(scores == -np.inf).tolist() == known
    assert (np.delete(scores, known) > 0).all()
    assert np.isfinite(np.delete(scores, known)).all()


def test_something_is_always_left_to_measure(matmul: Sample) -> None:
    """TVM samples for ever among candidates that are all ruled out."""
    model = new_model()
    model.update(matmul.part(0, 3).inputs, [result(1.0, COMPILE_ERROR)] * 3)
    assert np.isfinite(scores_of(model, matmul.part(0, 3))).all()
    assert (scores_of(model, matmul.part(0, 16)) == -np.inf).sum() >= 3


def test_failures_are_no_latencies(matmul: Sample) -> None:
    model = new_model()
    results = [*matmul.part(0, 24).results, *[result(1.0, RUN_TIMEOUT)] * 8]
    model.update(matmul.part(0, 32).inputs, results)
    seconds = 1 / scores_of(model, matmul)
    assert seconds.min() > matmul.latencies_s.min() / 10
    assert seconds.max() < matmul.latencies_s.max() * 1e3 * 10  # a run probability is at least 1e-3
    learn(model, matmul.part(32, 64))
    assert model.num_failed == 8
    assert np.isfinite(scores_of(model, matmul)).all()


def test_nothing_but_failures(matmul: Sample) -> None:
    model = new_model()
    before = scores_of(model, matmul)
    model.update(matmul.part(0, 8).inputs, [result(1.0, BUILD_TIMEOUT)] * 8)
    np.testing.assert_array_equal(scores_of(model, matmul), before)
    assert model.num_failed == 8
    learn(model, matmul.part(8, 24))
    assert np.isfinite(scores_of(model, matmul)).all()


def test_the_same_program_many_times(matmul: Sample) -> None:
    model = new_model()
    inputs = matmul.inputs[:1] * 6
    model.update(inputs, [result(s) for s in (1e-3, 1e-3, 2e-3, 1e-3, 4e-3, 1e-3)])
    scores = model.predict(matmul.task, [matmul.states[0]] * 3 + [matmul.states[1]])
    assert scores[0] == scores[1] == scores[2]
    assert np.isfinite(scores).all()


def test_save_and_load(matmul: Sample, conv: Sample, tmp_path: Path) -> None:
    file = str(tmp_path / "model.safetensors")
    model = new_model(seed=3, fit_config=FitConfig())
    failed = [result(1.0, COMPILE_ERROR)]
    model.update([*matmul.part(0, 65).inputs], [*matmul.part(0, 64).results, *failed])
    model.save(file)
    loaded = new_model(seed=8, fit_config=FitConfig())
    scores_of(loaded, conv)  # has met another task before
    loaded.load(file)
    assert (loaded.num_failed, loaded.seed) == (1, 3)
    expected = scores_of(model, matmul)
    np.testing.assert_array_equal(scores_of(loaded, matmul), expected)
    assert expected[64] == -np.inf
    np.testing.assert_array_equal(
        rows_of(loaded).batch().unscaled,
        rows_of(model).batch().unscaled,  # not recovered ones
    )
    learn(loaded, matmul.part(65, 66), conv.part(0, 1))
    assert rows_of(loaded).tasks.tolist() == [0] * 66 + [1], "numbers are those of the file"
    loaded.load(file)

    # The next update continues: nothing is forgotten, and it is as if there had been no break.
    learn(model, conv)
    learn(loaded, conv)
    for sample in (matmul, conv):
        np.testing.assert_array_equal(scores_of(loaded, sample), scores_of(model, sample))
    assert agreement(loaded, matmul.part(0, 64)) > 0.9
    assert agreement(loaded, conv) > 0.8


def test_load_forgets_the_scores_of_before(matmul: Sample, tmp_path: Path) -> None:
    file = str(tmp_path / "m")
    model = learn(new_model(), matmul.part(0, 16))
    expected = scores_of(model, matmul)
    model.save(file)
    learn(model, matmul.part(16, 48))
    other = scores_of(model, matmul)
    model.load(file)
    assert (other != expected).any()
    np.testing.assert_array_equal(scores_of(model, matmul), expected)


def test_save_before_anything_was_measured(matmul: Sample, tmp_path: Path) -> None:
    """The weights come back: seeds score alike only until something is learned."""
    model, loaded, fresh = new_model(seed=2), new_model(seed=4), new_model(seed=4)
    model.save(str(tmp_path / "m"))
    loaded.load(str(tmp_path / "m"))
    for each in (model, loaded, fresh):
        learn(each, matmul.part(0, 8))
    np.testing.assert_array_equal(scores_of(loaded, matmul), scores_of(model, matmul))
    assert (scores_of(fresh, matmul) != scores_of(model, matmul)).any()


def test_files_that_cannot_be_loaded(
    matmul: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = learn(new_model(), matmul.part(0, 16))
    before = scores_of(model, matmul)
    text = tmp_path / "log.json"
    text.write_text("{}\n")
    bare = tmp_path / "bare"
    Predictor.untrained(PredictorConfig(), 0).save(bare)
    old = tmp_path / "old"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA_VERSION", 1)
        model.save(str(old))
    for file in (text, tmp_path / "missing", bare, old):
        with pytest.raises(CheckpointError, match=str(file)):
            model.load(str(file))
    with pytest.raises(CheckpointError, match="not the state of a search"):
        model.load(str(bare))
    with pytest.raises(CheckpointError, match=r"schema version 1;.* Train it again"):
        model.load(str(old))
    np.testing.assert_array_equal(scores_of(model, matmul), before)


def write_log(file: Path, samples: Sequence[Sample], failed: int = 0) -> None:
    for sample in samples:
        results = sample.results
        results[:failed] = [result(1.0, RUNTIME_ERROR)] * failed
        auto_scheduler.save_records(str(file), sample.inputs, results)


def test_training_waits_until_somebody_asks(
    matmul: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last batch of a search nobody may; the scores are those of training at once."""
    fit, trained = Predictor.fit, list[Predictor]()

    def counted(self: Predictor, rows: TrainingRows, *, seed: int = 0) -> None:
        trained.append(self)
        fit(self, rows, seed=seed)

    monkeypatch.setattr(Predictor, "fit", counted)
    asked, silent = new_model(), new_model()
    for first in (0, 16):
        for model in (asked, silent):
            learn(model, matmul.part(first, first + 16))
        scores_of(asked, matmul)
    assert len(trained) == 3
    np.testing.assert_array_equal(scores_of(silent, matmul), scores_of(asked, matmul))
    scores_of(silent, matmul.part(0, 1))
    assert len(trained) == 4
    learn(silent, matmul.part(32, 48))
    file = tmp_path / "model.safetensors"
    checkpoint.write_checkpoint(file, silent.content())
    resumed = new_model()
    resumed.load(str(file))
    assert len(trained) == 4
    silent.catch_up()
    silent.save(str(file))
    assert len(trained) == 5
    np.testing.assert_array_equal(scores_of(resumed, matmul), scores_of(silent, matmul))


def test_what_was_put_off_is_as_much_after_a_kill(matmul: Sample, tmp_path: Path) -> None:
    """How long the network learns depends on how many programs are new."""
    model, file = CDMPPModel(device=DEVICE), tmp_path / "model.safetensors"
    for first, last in ((0, 4), (4, 20)):
        learn(model, matmul.part(first, last))
    checkpoint.write_checkpoint(file, model.content())
    resumed = CDMPPModel(device=DEVICE)
    resumed.load(str(file))
    np.testing.assert_array_equal(scores_of(resumed, matmul), scores_of(model, matmul))


def test_update_from_file_equals_update(matmul: Sample, conv: Sample, tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    parts = [matmul.part(0, 20), conv.part(0, 20)]
    write_log(file, parts, failed=1)
    from_file, direct = new_model(), new_model()
    from_file.update_from_file(str(file))
    results = [r for part in parts for r in [result(1.0, RUNTIME_ERROR), *part.results[1:]]]
    direct.update([i for part in parts for i in part.inputs], results)
    assert from_file.num_failed == direct.num_failed == 2
    for sample in (matmul, conv):
        scores = scores_of(from_file, sample)
        np.testing.assert_array_equal(scores, scores_of(direct, sample))
        assert scores[0] == -np.inf


def test_update_from_the_first_lines_of_a_file(matmul: Sample, tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    write_log(file, [matmul.part(0, 20)])
    some = new_model()
    some.update_from_file(str(file), n_lines=8)
    expected = learn(new_model(), matmul.part(0, 8))
    np.testing.assert_array_equal(scores_of(some, matmul), scores_of(expected, matmul))
    for every in (0, -1):  # as TVM has it
        model = new_model()
        model.update_from_file(str(file), n_lines=every)
        assert len(rows_of(model)) == 20


def test_unregistered_workload(
    matmul: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path / "log.json", [matmul.part(0, 4)])
    registry = auto_scheduler.workload_registry.WORKLOAD_FUNC_REGISTRY
    monkeypatch.delitem(registry, "zoo.matmul")
    model = new_model()
    with pytest.raises(RecordError, match=r"None of the 4 .*zoo\.matmul.* is not registered"):
        model.update_from_file(str(tmp_path / "log.json"))
    assert np.isfinite(scores_of(model, matmul)).all()


def test_a_log_with_an_unregistered_workload(
    matmul: Sample,
    conv: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Records that cannot be used are counted, and the others are learned from."""
    log = tmp_path / "log.json"
    write_log(log, [conv.part(0, 8), matmul.part(0, 3), conv.part(8, 16)])
    log.write_bytes(b"# a comment\n" + log.read_bytes())  # so lines are not records
    monkeypatch.delitem(auto_scheduler.workload_registry.WORKLOAD_FUNC_REGISTRY, "zoo.matmul")
    model = new_model()
    model.update_from_file(str(tmp_path / "log.json"))
    assert model.num_unscored == 3
    assert "3 programs could not be used; record 10: The workload" in caplog.text
    expected = new_model()
    expected.update(conv.part(0, 16).inputs, conv.part(0, 16).results)
    np.testing.assert_array_equal(scores_of(model, conv), scores_of(expected, conv))


def test_tasks_of_another_device(matmul: Sample) -> None:
    model = CDMPPModel()
    scores_of(model, matmul)
    gpu = sampling.make_task(sampling.matmul, "cuda -arch=sm_80", (64, 64, 64))
    states = sampling.sample_states(gpu, 2)
    with pytest.raises(ConfigError, match="a cpu; got a task with target 'cuda"):
        model.predict(gpu, states)
    assert np.isfinite(scores_of(model, matmul)).all()
    with pytest.raises(ConfigError, match="a gpu; got a task with target 'llvm"):
        scores_of(CDMPPModel(device=DeviceSpec(name="x", kind="gpu")), matmul)


@pytest.mark.parametrize("target", ["cuda -arch=sm_75 -model={}", "rocm -model={}"])
def test_the_target_may_name_the_device(target: str) -> None:
    def scores(name: str, device: DeviceSpec | None = None) -> Floats:
        task = sampling.make_task(sampling.matmul, target.format(name), (64, 64, 64))
        states = sampling.sample_states(task, 8, seed=3)
        return np.array(CDMPPModel(device=device).predict(task, states))

    np.testing.assert_array_equal(scores("t4"), scores("unknown", find_device("t4")))
    assert (scores("t4") != scores("mi100")).all()


@pytest.mark.parametrize("builder", [sampling.matmul, sampling.conv2d_nchw, sampling.softmax])
def test_programs_for_a_gpu(builder: Any) -> None:
    task = sampling.make_task(builder, "cuda -arch=sm_80")
    gpu = sample(task, 24)
    model = CDMPPModel(weights=None, fit_config=QUICK)
    before = scores_of(model, gpu)
    learn(model, gpu.part(0, 16))
    after = scores_of(model, gpu)
    runs = ~np.array([beyond_limits(task, state) for state in gpu.states])
    for scores in (before, after):
        np.testing.assert_array_equal(np.isfinite(scores), runs)
        assert (scores[runs] > 0).all()
        assert len(set(scores[runs])) > runs.sum() // 2
    assert (before[runs] != after[runs]).any()
    assert model.num_unscored == model.num_failed == 0


def beyond_limits(task: Any, state: Any) -> bool:
    """What TVM's own model finds out by lowering: it has no features of such a program."""
    features = auto_scheduler.feature.get_per_store_features_from_states([state], task)
    return not np.size(features[0]) or not features[0].any()


def test_programs_beyond_a_gpus_limits_are_ruled_out_unless_all_are() -> None:
    hardware = auto_scheduler.HardwareParams(-1, 16, 64, 16384, 2**31 - 1, 512, 8, 32)
    roomy = sampling.make_task(sampling.matmul, "cuda -arch=sm_80", (512, 512, 512))
    task = auto_scheduler.SearchTask(
        workload_key=roomy.workload_key, target=roomy.target, hardware_params=hardware
    )
    states = sampling.sample_states(roomy, 64, seed=1)
    refused = np.array([beyond_limits(task, state) for state in states])
    assert 3 < refused.sum() < 61
    scores = np.array(CDMPPModel().predict(task, states))
    np.testing.assert_array_equal(np.isneginf(scores), refused)
    assert (scores[~refused] > 0).all()
    # Where all are, they are still told apart.
    hopeless = np.array(CDMPPModel().predict(task, [states[n] for n in np.flatnonzero(refused)]))
    assert np.isfinite(hopeless).all()
    assert len(set(hopeless)) > 1


def test_the_device_of_a_task_is_this_machine(matmul: Sample) -> None:
    def best(cores: int) -> float:
        task = auto_scheduler.SearchTask(
            workload_key=matmul.task.workload_key,
            target=matmul.task.target,
            hardware_params=auto_scheduler.HardwareParams(cores, 32, 64, 0, 0, 0, 0, 0),
        )
        return max(CDMPPModel().predict(task, matmul.states))

    assert best(8) > 1.5 * best(1)


@pytest.fixture
def compiler() -> Iterator[None]:
    if shutil.which("g++") is None:
        pytest.skip("measuring needs g++")
    yield


@pytest.mark.usefixtures("compiler")
def test_a_real_search(matmul: Sample, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    model = new_model()
    params = {"evolutionary_search_population": 64, "evolutionary_search_num_iters": 1,
              "sample_init_min_population": 16}  # fmt: skip
    policy = auto_scheduler.SketchPolicy(matmul.task, model, params=params, seed=1, verbose=0)
    options = auto_scheduler.TuningOptions(
        num_measure_trials=4,
        num_measures_per_round=2,
        builder=auto_scheduler.LocalBuilder(timeout=60, n_parallel=1),
        runner=auto_scheduler.LocalRunner(timeout=60, number=1, repeat=1, min_repeat_ms=0),
        measure_callbacks=[auto_scheduler.RecordToFile(str(log))],
        verbose=0,
    )
    matmul.task.tune(options, search_policy=policy)
    records = list(auto_scheduler.RecordReader(str(log)))
    assert len(records) == 4
    assert [r.error_no for _, r in records] == [0] * 4
    assert model.num_failed == 0
    # A search on one task learns from its last round only when the next one begins.
    again = new_model()
    again.update(*map(list, zip(*records[:2], strict=True)))
    np.testing.assert_allclose(scores_of(again, matmul), scores_of(model, matmul), rtol=1e-3)


@pytest.mark.parametrize(
    "bad", [[float("nan")], [0.0], [-1e-3], [float("inf")], [1e10], [1e-3, 0.0]]
)
def test_costs_that_are_no_seconds(
    matmul: Sample, bad: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Such records are counted and named, and nothing else changes."""
    model, expected = new_model(), new_model()
    results = matmul.part(0, 16).results
    results[5] = auto_scheduler.MeasureResult(bad, 0, "", 0.1, 1.0)
    model.update(matmul.part(0, 16).inputs, results)
    assert model.num_unscored == 1
    assert "record 6: expected seconds above 1e-12; got" in caplog.text
    others = np.delete(np.arange(16), 5)
    expected.update([matmul.inputs[n] for n in others], [results[n] for n in others])
    np.testing.assert_array_equal(scores_of(model, matmul), scores_of(expected, matmul))


def test_as_many_results_as_inputs(matmul: Sample) -> None:
    model = new_model()
    with pytest.raises(ConfigError, match="got 3 inputs and 2 results"):
        model.update(matmul.part(0, 3).inputs, matmul.part(0, 2).results)
    assert len(rows_of(model)) == 0


def test_devices_by_name(matmul: Sample) -> None:
    gpu = sampling.make_task(sampling.matmul, "cuda -arch=sm_75", (64, 64, 64))
    states = sampling.sample_states(gpu, 8, seed=3)
    named = CDMPPModel(device="t4").predict(gpu, states)
    assert named == CDMPPModel(device=find_device("t4")).predict(gpu, states)
    with pytest.raises(UnknownDeviceError, match="no-such-device"):
        CDMPPModel(device="no-such-device")
    with pytest.raises(ConfigError, match="got 7"):
        CDMPPModel(device=7)  # type: ignore[arg-type]


def with_cores(task: Any, cores: int) -> Any:
    return auto_scheduler.SearchTask(
        workload_key=task.workload_key,
        target=task.target,
        hardware_params=auto_scheduler.HardwareParams(cores, 32, 64, 0, 0, 0, 0, 0),
    )


def test_one_key_with_two_hardware_parameters(matmul: Sample) -> None:
    """Each is a task of its own, on a machine of its own."""
    few, many = with_cores(matmul.task, 2), with_cores(matmul.task, 64)
    model = CDMPPModel(weights=None, fit_config=QUICK)
    first = model.predict(few, matmul.states)
    assert model.predict(many, matmul.states) == CDMPPModel(weights=None).predict(
        many, matmul.states
    )
    assert model.predict(few, matmul.states) == first
    inputs = [auto_scheduler.MeasureInput(task, state)
              for task in (few, many) for state in matmul.states[:8]]  # fmt: skip
    model.update(inputs, [*matmul.part(0, 8).results] * 2)
    rows = rows_of(model)
    assert [rows.machines[m].hardware.cores for m in rows.machine_of] == [2] * 8 + [64] * 8
    assert rows.tasks.tolist() == [0] * 8 + [1] * 8


def test_load_across_devices(matmul: Sample, tmp_path: Path) -> None:
    """What was measured elsewhere stays what it is: measured elsewhere."""
    other = DeviceSpec(name="other", kind="cpu", cores=64, clock_hz=1e9)
    model = CDMPPModel(0, device=other, weights=None, fit_config=QUICK)
    learn(model, matmul.part(0, 16))
    model.save(str(tmp_path / "m"))
    here = new_model()
    here.load(str(tmp_path / "m"))
    # Another device, so other scores, of the same network.
    assert (scores_of(here, matmul) != scores_of(model, matmul)).any()
    learn(here, matmul.part(16, 24))
    rows = rows_of(here)
    found = [rows.machines[m].device for m in rows.machine_of]
    assert found == [other] * 16 + [DEVICE] * 8


def test_a_saved_model_knows_the_device_it_was_made_for(matmul: Sample, tmp_path: Path) -> None:
    other = DeviceSpec(name="other", kind="cpu", cores=64, aliases=("o",), sources={"cores": "me"})
    model = learn(CDMPPModel(0, device=other, weights=None, fit_config=QUICK), matmul.part(0, 16))
    model.save(str(tmp_path / "m"))
    loaded = CDMPPModel()
    scores_of(loaded, matmul)  # for this machine
    loaded.load(str(tmp_path / "m"))
    np.testing.assert_array_equal(scores_of(loaded, matmul), scores_of(model, matmul))


def test_load_then_a_log_of_unknown_workloads(
    matmul: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn(new_model(), matmul.part(0, 8)).save(str(tmp_path / "m"))
    write_log(tmp_path / "log.json", [matmul.part(0, 4)])
    monkeypatch.delitem(auto_scheduler.workload_registry.WORKLOAD_FUNC_REGISTRY, "zoo.matmul")
    model = CDMPPModel(weights=None, fit_config=QUICK)
    model.load(str(tmp_path / "m"))
    with pytest.raises(RecordError, match=r"None of the 4 records"):
        model.update_from_file(str(tmp_path / "log.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        (b"", "holds no measure record"),
        (b"\n\n", "holds no measure record"),
        (b"# a comment\n", "holds no measure record"),
        (b"half a li", "line 1: not JSON"),
        (b"\xff\xfe{\x00", "line 1: not JSON"),
    ],
)
def test_logs_without_a_record(tmp_path: Path, content: bytes | None, message: str) -> None:
    file = tmp_path / "log.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(RecordError, match=message):
        new_model().update_from_file(str(file))
    with pytest.raises(RecordError, match="cannot be read: Is a directory"):
        new_model().update_from_file(str(tmp_path))


def test_a_log_cut_anywhere_teaches_its_whole_lines_only(matmul: Sample, tmp_path: Path) -> None:
    whole, cut = tmp_path / "log.json", tmp_path / "cut.json"
    write_log(whole, [matmul.part(0, 2)])
    text = whole.read_bytes()
    first = text.index(b"\n") + 1
    for end in [*range(first + 1, len(text) - 1, 37), len(text) - 2, len(text)]:
        cut.write_bytes(text[:end])
        model = CDMPPModel(device=DEVICE, weights=None, fit_config=FitConfig(steps=0))
        model.update_from_file(str(cut))
        is_whole = end >= len(text) - 1
        assert rows_of(model).latencies_s.tolist() == means_s(matmul)[: 1 + is_whole]
        assert model.num_unscored == (not is_whole)


@pytest.mark.parametrize("damage", [b"{}\n", b'{"i":[["k"', b"\xff\n"])
def test_damaged_lines_are_counted(
    matmul: Sample, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "log.json"
    write_log(file, [matmul.part(0, 6)])
    lines = file.read_bytes().splitlines(keepends=True)
    packed = tmp_path / "log.json.gz"
    packed.write_bytes(
        gzip.compress(b"".join([*lines[:3], damage.rstrip(b"\n") + b"\n", *lines[3:]]))
    )
    model = new_model()
    model.update_from_file(str(packed))
    assert model.num_unscored == 1
    assert "record 4:" in caplog.text
    np.testing.assert_array_equal(
        scores_of(model, matmul), scores_of(learn(new_model(), matmul.part(0, 6)), matmul)
    )


def test_a_foreign_target_in_a_log(matmul: Sample, tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    write_log(file, [matmul.part(0, 4)])
    lines = file.read_text().splitlines()
    lines[1] = lines[1].replace("llvm", "no-such-target")
    file.write_text("\n".join(lines) + "\n")
    model = new_model()
    model.update_from_file(str(file))
    assert (len(rows_of(model)), model.num_unscored) == (3, 1)


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (["cuda -arch=sm_75", [2, 64, 64, 0, 0, 0, 0, 0], "", 1, []], "for a cpu; got a task with"),
        (["llvm", [2, 64, 64], "", 1, []], "expected 8 hardware parameters, or none; got 3"),
        (["llvm", [2, 64, 64, 0, 0, 0, 0, 0, 0, 0], "", 1, []], "up to 8 whole numbers, is [2"),
    ],
)
def test_a_task_in_a_log_that_is_not_this_models(
    matmul: Sample,
    tmp_path: Path,
    described: list[Any],
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Such lines are counted and named, and the others are learned from."""
    file = tmp_path / "log.json"
    write_log(file, [matmul.part(0, 4)])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[2]["i"][0][1:] = described
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = new_model()
    model.update_from_file(str(file))
    assert (len(rows_of(model)), model.num_unscored) == (3, 1)
    assert "record 3: " in caplog.text
    assert message in caplog.text


def test_logs_of_old_versions_have_no_hardware_parameters(matmul: Sample, tmp_path: Path) -> None:
    file = tmp_path / "log.json"
    write_log(file, [matmul.part(0, 4)])
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["i"][0] = line["i"][0][:2]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    model = new_model()
    model.update_from_file(str(file))
    assert rows_of(model).latencies_s.tolist() == means_s(matmul.part(0, 4))


def test_threads_take_turns(matmul: Sample, conv: Sample) -> None:
    model = new_model()
    expected = {id(one): scores_of(new_model(), one).tolist() for one in (matmul, conv)}

    def score(one: Sample) -> bool:
        return bool(model.predict(one.task, one.states) == expected[id(one)])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(score, [matmul, conv] * 12))


def test_a_long_search_is_bounded(matmul: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest stay, and memory does not grow; one big batch or many."""
    model = CDMPPModel(device=DEVICE, weights=None, fit_config=FitConfig(steps=0))
    few, count = matmul.part(0, 1), 1350
    num_leaves = int(rows_of(learn(new_model(), few)).asts.leaf_counts[0])
    monkeypatch.setattr(memory, "_MAX_LEAVES", 1300 * num_leaves)
    latencies_s = np.random.default_rng(0).lognormal(-6, 1, count).tolist()
    measured = [auto_scheduler.MeasureResult([s], 0, "", 0.1, 1.0) for s in latencies_s]
    for part in (slice(0, 1290), slice(1290, count)):
        model.update(few.inputs * len(measured[part]), measured[part])
        assert len(rows_of(model)) in (1290, int(0.75 * 1300))
    kept = rows_of(model)
    assert kept.asts.leaf_counts.sum() <= 0.75 * memory._MAX_LEAVES
    assert set(np.sort(latencies_s)[:100]) <= set(kept.latencies_s)
    assert np.isfinite(scores_of(model, matmul)).all()


def test_what_is_forgotten_depends_on_the_seed_alone(
    matmul: Sample, conv: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_MAX_LEAVES", 60)
    file = str(tmp_path / "m")

    def kept(seed: int, *, resumed: bool) -> list[float]:
        model = new_model(seed)
        for first in range(0, 96, 16):
            learn(model, matmul.part(first, first + 16))
            if resumed:
                model.save(file)
                model = new_model(seed=99)
                model.load(file)
            learn(model, conv.part(first // 4, first // 4 + 4))
            assert rows_of(model).asts.leaf_counts.sum() <= 60
        kept_s: list[float] = rows_of(model).latencies_s.tolist()
        return kept_s

    whole = kept(1, resumed=False)
    assert kept(1, resumed=True) == whole
    assert kept(2, resumed=False) != whole
    assert {means_s(matmul)[n] for n in np.argsort(means_s(matmul))[:3]} <= set(whole)


def test_a_batch_of_which_nothing_could_be_made_is_explained_once(
    matmul: Sample, caplog: pytest.LogCaptureFixture
) -> None:
    model = new_model()
    reason = "Traceback:\nTVMError: Check failed: argument names: args.size() == 3"
    failure = auto_scheduler.MeasureResult([1e10], 1, reason, 0.1, 1.0)
    for first in (0, 4):
        model.update(matmul.part(first, first + 4).inputs, [failure] * 4)
    other = auto_scheduler.MeasureResult([1e10], 1, "TVMError: too large", 0.1, 1.0)
    caplog_before = len(caplog.records)
    new_model().update(matmul.part(0, 4).inputs, [other] * 4)
    assert "TVMError: too large." in caplog.records[caplog_before].message
    told = [r.message for r in caplog.records if "to_search_form" in r.message]
    assert len(told) == 1
    assert (
        "any of 4 schedules: TVMError: Check failed: argument names: args.size() == 3." in told[0]
    )


def test_a_run_that_takes_too_long_is_no_program_that_cannot_run(matmul: Sample) -> None:
    """TVM reports it as an error of the run, with the reason in the message."""
    slow = auto_scheduler.MeasureResult([1e10], RUNTIME_ERROR, "TimeoutError()", 10.0, 1.0)
    model = new_model()
    model.update(matmul.part(0, 2).inputs, [slow, result(1.0, RUNTIME_ERROR)])
    scores = scores_of(model, matmul.part(0, 8))
    assert np.isfinite(scores[0])
    assert np.isneginf(scores[1])


@pytest.mark.parametrize(
    ("builder", "remark"),
    [
        (sparse.sparse_dense_bsr, "1 loops run as often as the data says"),
        (sparse.ragged_sum, "1 loops run as often as the data says"),
        (edges.lstm_cell, "Other stages read the result c"),
        (edges.returned_elementwise, "Other stages read the result B"),
    ],
)
def test_states_that_tvm_builds_are_scored_and_what_is_special_is_told(
    builder: Any, remark: str, caplog: pytest.LogCaptureFixture
) -> None:
    special = sample(sampling.make_task(builder), 8)
    model = new_model()
    scores = scores_of(model, special)
    assert model.num_unscored == 0
    assert (scores > 1e-6).all()
    assert sum(remark in record.message for record in caplog.records) == 1


def test_a_task_that_computes_nothing_does_not_end_a_search() -> None:
    empty = sample(sampling.make_task(edges.empty_rows), 4)
    model = new_model()
    assert (scores_of(model, empty) == 1e-6).all()
    assert model.num_unscored == 4


def test_a_search_starts_from_the_shipped_weights(matmul: Sample, tmp_path: Path) -> None:
    model = CDMPPModel(device=DEVICE)
    expected = scores_of(CDMPPModel(device=DEVICE, weights="shipped"), matmul)
    np.testing.assert_array_equal(scores_of(model, matmul), expected)
    assert (scores_of(CDMPPModel(device=DEVICE, weights=None), matmul) != expected).any()
    assert (scores_of(CDMPPModel(device=DEVICE, weights="evaluation"), matmul) != expected).any()


def test_a_calibration_is_used_by_operator_and_saved(
    matmul: Sample, conv: Sample, tmp_path: Path
) -> None:
    predictor = load_weights("shipped")
    assert isinstance(predictor, TrainedPredictor)
    levels = Levels(weights=predictor.origin, level=np.log(2.0), operators={"matmul": np.log(5.0)})
    device = replace(DEVICE, calibration=DeviceCalibration(levels=(levels,)))
    plain, model = CDMPPModel(device=DEVICE), CDMPPModel(device=device)
    for work, factor in ((matmul, 5.0), (conv, 2.0)):
        scores = np.array(model.predict(work.task, work.states))
        np.testing.assert_allclose(
            factor * scores, plain.predict(work.task, work.states), rtol=1e-5
        )
    model.update(matmul.part(0, 8).inputs, matmul.part(0, 8).results)
    learned = model.predict(conv.task, conv.states)
    model.save(str(tmp_path / "model"))
    loaded = CDMPPModel()
    loaded.load(str(tmp_path / "model"))
    assert loaded.predict(conv.task, conv.states) == learned


def test_weights_adapt_and_a_loaded_search_goes_on(matmul: Sample, tmp_path: Path) -> None:
    model = CDMPPModel(device=DEVICE)
    before = agreement(model, matmul.part(48, 96))
    begin = time.perf_counter()
    for first in range(0, 48, 16):
        learn(model, matmul.part(first, first + 16))
    assert time.perf_counter() - begin < 10
    assert agreement(model, matmul.part(48, 96)) > before + 0.2
    model.save(str(tmp_path / "m"))
    loaded = CDMPPModel(seed=9)
    loaded.load(str(tmp_path / "m"))
    for each in (model, loaded):
        learn(each, matmul.part(48, 64))
    np.testing.assert_array_equal(scores_of(loaded, matmul), scores_of(model, matmul))


def test_settings_of_another_start_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights=None"):
        CDMPPModel(config=PredictorConfig())
    with pytest.raises(CheckpointError, match="No weights 'nonsense'"):
        CDMPPModel(weights="nonsense")


def test_a_saved_model_stays_with_its_kind_of_device(matmul: Sample, tmp_path: Path) -> None:
    """The kind comes from what was measured, where no device was named."""
    file = str(tmp_path / "m")
    gpu = sampling.make_task(sampling.matmul, "cuda -arch=sm_75 -model=t4", (64, 64, 64))
    learn(CDMPPModel(), sample(gpu, 8)).save(file)
    loaded = CDMPPModel()
    loaded.load(file)
    with pytest.raises(ConfigError, match="predicts for a gpu"):
        loaded.predict(matmul.task, matmul.states)
    here = learn(new_model(), matmul.part(0, 8))
    before = scores_of(here, matmul)
    with pytest.raises(CheckpointError, match="predicts for a gpu"):
        here.load(file)
    np.testing.assert_array_equal(scores_of(here, matmul), before)
    assert len(rows_of(here)) == 8


@pytest.mark.parametrize("weights", ["shipped", None])
def test_measurements_of_no_use_change_nothing(
    matmul: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: str | None
) -> None:
    model = learn(CDMPPModel(device=DEVICE, weights=weights), matmul.part(0, 16))
    before = scores_of(model, matmul)
    model.update(matmul.part(16, 20).inputs, [result(float("nan"))] * 4)
    np.testing.assert_array_equal(scores_of(model, matmul), before)
    assert model.num_unscored == 4
    write_log(tmp_path / "log.json", [matmul.part(0, 4)])
    fresh = CDMPPModel(device=DEVICE, weights=weights)
    model.save(str(tmp_path / "m"))
    fresh.load(str(tmp_path / "m"))
    monkeypatch.delitem(auto_scheduler.workload_registry.WORKLOAD_FUNC_REGISTRY, "zoo.matmul")
    with pytest.raises(RecordError, match="None of the 4 records"):
        fresh.update_from_file(str(tmp_path / "log.json"))
    monkeypatch.undo()
    np.testing.assert_array_equal(scores_of(fresh, matmul), before)


@pytest.mark.parametrize("seed", ["x", 2**70, -1, 1.5])
def test_what_is_no_seed_is_refused(seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed must be a whole number"):
        CDMPPModel(seed)


def test_what_is_no_task_state_or_measurement_is_refused(matmul: Sample, conv: Sample) -> None:
    model, states = new_model(), [item.state for item in matmul.part(0, 2).inputs]
    task = matmul.inputs[0].task
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: model.update(matmul.part(0, 2).inputs, [None, None]), "Expected MeasureResult"),
        (lambda: model.update([None], matmul.part(0, 1).results), "Expected MeasureInput"),
        (lambda: model.predict(task, [1, 2]), "got int"),
        (lambda: model.predict(None, states), "Expected a SearchTask; got NoneType"),
        (lambda: model.predict(conv.inputs[0].task, states), "got some of another"),
        (lambda: model.update_from_file("a\0b"), "without NUL"),
        (lambda: model.save("a\0b"), "without NUL"),
        (lambda: model.update_from_file("log", n_lines=1e3), "n_lines must be"),  # type: ignore[arg-type]
    ]
    for call, message in wrong:
        with pytest.raises(ConfigError, match=message):
            call()
    assert model.num_unscored == 0
