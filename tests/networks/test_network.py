import copy
import random
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tvm_cdmpp.bridge.runtime import load_tvm
from tvm_cdmpp.bridge.target import default_target
from tvm_cdmpp.errors import MissingDependencyError, NetworkError
from tvm_cdmpp.networks.deployment import deploy
from tvm_cdmpp.networks.named import _STOCK
from tvm_cdmpp.networks.names import NETWORKS
from tvm_cdmpp.networks.network import Network, extract_tasks, load_network
from tvm_cdmpp.networks.outputs import check_outputs, compare_outputs, random_inputs
from tvm_cdmpp.networks.zoo import ZOO, build_module

tvm = load_tvm()

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's, of TorchScript

IMAGE = (1, 3, 8, 8)


class TinyConv(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.norm(self.conv(image)))
        scores: torch.Tensor = self.head(features.mean(dim=(2, 3)))
        return scores


class TinyLookup(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.head(self.table(ids))
        return scores


@pytest.fixture
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return TinyConv().eval()


def save_trace(module: torch.nn.Module, example: torch.Tensor, path: Path) -> Path:
    torch.jit.trace(module, example).save(str(path))  # type: ignore[no-untyped-call]
    return path


def assert_computes(network: Network, module: torch.nn.Module) -> None:
    inputs = random_inputs(network, seed=1)
    with torch.no_grad():
        expected = module(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    found = deploy(network, default_target()).run(inputs)
    assert compare_outputs([expected], found, tolerance=1e-4).agree


# ---------------------------------------------------------------- named networks


def test_names() -> None:
    assert (*_STOCK, *ZOO) == NETWORKS


def test_loading_is_deterministic_and_leaves_global_generators_alone() -> None:
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    loaded = [load_network(name) for name in ("mlp", "bert-tiny")]
    drawn = (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())  # noqa: NPY002
    for network in loaded:
        again = load_network(network.name)
        assert tvm.ir.structural_equal(again.mod, network.mod)
        assert list(again.params) == list(network.params)
        for name, weight in network.params.items():
            np.testing.assert_array_equal(again.params[name].numpy(), weight.numpy())


@pytest.fixture(scope="module")
def bert() -> Network:
    return load_network("bert-tiny")


def test_bert_computes_what_torch_computes(bert: Network) -> None:
    network = bert
    assert network.inputs == {"token_ids": ((1, 128), "int64")}
    inputs = random_inputs(network, seed=0)
    assert 1000 < inputs["token_ids"].max() < 30522
    with torch.no_grad():
        expected = build_module("bert-tiny", seed=0)(torch.from_numpy(inputs["token_ids"]))
    found = deploy(network, default_target()).run(inputs)
    assert compare_outputs([e.numpy() for e in expected], found, tolerance=1e-4).agree


@pytest.mark.parametrize("name", sorted(set(ZOO) - {"bert-base"}))
def test_zoo_outputs_depend_on_their_input(name: str) -> None:
    module, (shape, dtype) = build_module(name, seed=0), (ZOO[name].shape, ZOO[name].dtype)
    generator = torch.Generator().manual_seed(0)
    inputs = [
        torch.randint(30522, shape, generator=generator)
        if dtype == "int64"
        else torch.randn(shape, generator=generator)
        for _ in range(2)
    ]
    with torch.no_grad():
        first, second, together = (
            found[0] if dtype == "int64" else found
            for found in (module(given) for given in (*inputs, torch.cat(inputs)))
        )
    assert (first - second).abs().max() > 1e-2 * first.abs().max()
    # Of two in a batch, each is what it is alone.
    torch.testing.assert_close(together, torch.cat([first, second]), rtol=1e-3, atol=1e-3)


def test_tasks_are_the_same_every_time() -> None:
    network, target = load_network("mlp"), default_target()
    (tasks, weights), (again, weights_again) = (extract_tasks(network, target) for _ in range(2))
    assert [task.workload_key for task in tasks] == [task.workload_key for task in again]
    assert weights == weights_again


def test_tasks_of_bert(bert: Network) -> None:
    target = default_target()
    tasks, weights = extract_tasks(bert, target)
    assert len(tasks) == 9
    # Per layer: query, key, value and output; both halves of attention; both of feed-forward.
    assert sum(w for t, w in zip(tasks, weights, strict=True) if "matmul" in t.desc) == 2 * 8 + 1
    for task in tasks:
        assert task.hardware_params.num_cores == target.attrs["num-cores"]


def test_every_task_of_dense_layers_survives_the_rewriting_of_its_weights() -> None:
    tasks, weights = extract_tasks(load_network("mlp"), default_target())
    assert weights == [1, 1, 1, 1]
    for task in tasks:
        policy = tvm.auto_scheduler.SketchPolicy(
            task,
            tvm.auto_scheduler.RandomModel(),
            params={"sample_init_min_population": 1, "evolutionary_search_population": 8},
            seed=0,
            verbose=0,
        )
        state = policy.sample_initial_population()[0]
        task.compute_dag.apply_steps_from_state(state, layout_rewrite=task.layout_rewrite_option)


def test_extraction_neither_talks_nor_downloads(
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("tried to download schedules")

    monkeypatch.setattr("tvm.autotvm.tophub.check_backend", refuse)
    extract_tasks(load_network("mlp"), default_target())
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "Did you mean resnet-18"),
        ("alexnet", "Known are resnet-18"),
        ("no/such/file.onnx", "no network file"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(name)


def test_a_named_network_takes_no_shapes() -> None:
    with pytest.raises(NetworkError, match="fixed inputs, but for the batch"):
        load_network("mlp", input_shapes={"data": (2, 1, 28, 28)})


def test_a_named_network_takes_a_batch() -> None:
    assert load_network("mlp", batch=3).inputs["data"] == ((3, 1, 28, 28), "float32")
    with pytest.raises(NetworkError, match="batch must be 1 to 1000000; got 1000001"):
        load_network("mlp", batch=1_000_001)
    for wrong in (2.5, True, "2"):
        with pytest.raises(NetworkError, match=f"batch must be a whole number; got {wrong!r}"):
            load_network("mlp", batch=wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------- PyTorch files


def test_torchscript(module: torch.nn.Module, tmp_path: Path) -> None:
    path = save_trace(module, torch.zeros(IMAGE), tmp_path / "tiny.pt")
    network = load_network(str(path), input_shapes={"image": IMAGE})
    assert (network.name, network.inputs) == ("tiny", {"image": (IMAGE, "float32")})
    assert_computes(network, module)


def test_torchscript_ids_are_integers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = TinyLookup().eval()
    path = save_trace(module, torch.zeros(1, 6, dtype=torch.int64), tmp_path / "lookup.pt")
    network = load_network(str(path), input_shapes={"ids": (1, 6)})
    assert network.inputs == {"ids": ((1, 6), "int64")}
    assert set(np.unique([random_inputs(network, seed=s)["ids"] for s in range(20)])) == set(
        range(7)
    )
    assert_computes(network, module)


@pytest.mark.parametrize("name", ["tiny.pt2", "named_like_torchscript.pt"])
def test_exported_program_holds_its_shapes(
    module: torch.nn.Module, tmp_path: Path, name: str
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # torch's, of the odd suffix
        torch.export.save(torch.export.export(module, (torch.zeros(IMAGE),)), tmp_path / name)
    network = load_network(str(tmp_path / name))
    assert network.inputs == {"image": (IMAGE, "float32")}
    assert_computes(network, module)


def test_exported_program_with_a_free_size_asks_for_it(
    module: torch.nn.Module, tmp_path: Path
) -> None:
    path = str(tmp_path / "free.pt2")
    free = {"image": {0: torch.export.Dim("batch", min=2, max=8)}}
    torch.export.save(
        torch.export.export(module, (torch.zeros(4, 3, 8, 8),), dynamic_shapes=free), path
    )
    with pytest.raises(NetworkError, match=r"image is \?x3x8x8; give --batch N or --input-shape"):
        load_network(path)
    for wishes in ({"input_shapes": {"image": (2, 3, 8, 8)}}, {"batch": 2}):
        network = load_network(path, **wishes)
        assert network.inputs["image"][0] == (2, 3, 8, 8)
        assert_computes(network, module)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (None, "image is of unknown shape; give --input-shape image:1x3x224x224, with its own"),
        ({"picture": IMAGE}, "no input called picture; its inputs are image"),
        ({"image": (1, 4, 8, 8)}, r"cannot import .* with the inputs image \(1, 4, 8, 8\) float32"),
        ({"image": (0, 3, 8, 8)}, "Sizes must be 1 to 2147483647"),
    ],
)
def test_bad_shapes(
    module: torch.nn.Module, tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    path = save_trace(module, torch.zeros(IMAGE), tmp_path / "tiny.pt")
    with pytest.raises(NetworkError, match=message):
        load_network(str(path), input_shapes=shapes)


def test_unsupported_torch_operator_is_named(tmp_path: Path) -> None:
    class Determinant(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            determinant: torch.Tensor = torch.linalg.det(x)
            return determinant

    path = save_trace(Determinant(), torch.eye(3), tmp_path / "det.pt")
    with pytest.raises(NetworkError, match="aten::linalg_det"):
        load_network(str(path), input_shapes={"x": (3, 3)})


def test_weights_alone_are_no_network(module: torch.nn.Module, tmp_path: Path) -> None:
    torch.save(module.state_dict(), tmp_path / "weights.pt")
    with pytest.raises(NetworkError, match="not a graph"):
        load_network(str(tmp_path / "weights.pt"))


@pytest.mark.parametrize("name", ["noise.pt", "noise.onnx", "empty.onnx"])
def test_files_of_another_kind(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"" if "empty" in name else b"hello, this is no network")
    with pytest.raises(NetworkError, match=name):
        load_network(str(tmp_path / name))


def test_cut_off_file(module: torch.nn.Module, tmp_path: Path) -> None:
    path = save_trace(module, torch.zeros(IMAGE), tmp_path / "tiny.pt")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(NetworkError, match=r"tiny\.pt"):
        load_network(str(path), input_shapes={"image": IMAGE})


# ---------------------------------------------------------------- ONNX


@pytest.fixture
def onnx() -> Any:
    return pytest.importorskip("onnx")


def save_onnx(onnx: Any, path: Path, *, batch: int | str, opset: int) -> dict[str, np.ndarray]:
    """Write a convolution and a dense layer, with a mean over two axes in between."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (8, 3, 3, 3), "shift": (8,), "weight": (5, 8), "bias": (5,)}
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    make, make_value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
    mean = make("ReduceMean", ["relu"], ["mean"], axes=[2, 3], keepdims=0)
    if opset >= 18:  # there, the axes are an input
        tensors.append(onnx.numpy_helper.from_array(np.array([2, 3]), "axes"))
        mean = make("ReduceMean", ["relu", "axes"], ["mean"], keepdims=0)
    graph = onnx.helper.make_graph(
        [
            make("Conv", ["image", "kernel", "shift"], ["conv"], pads=[1, 1, 1, 1]),
            make("Relu", ["conv"], ["relu"]),
            mean,
            make("Gemm", ["mean", "weight", "bias"], ["scores"], transB=1),
        ],
        "tiny",
        [make_value("image", onnx.TensorProto.FLOAT, [batch, 3, 8, 8])],
        [make_value("scores", onnx.TensorProto.FLOAT, [batch, 5])],
        tensors,
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8
    )
    onnx.save(model, path)
    return weights


@pytest.mark.parametrize(("batch", "opset"), [(1, 17), ("N", 18)])
def test_onnx(onnx: Any, tmp_path: Path, batch: int | str, opset: int) -> None:
    path = tmp_path / "tiny.onnx"
    weights = save_onnx(onnx, path, batch=batch, opset=opset)
    if batch == "N":
        with pytest.raises(NetworkError, match=r"image is \?x3x8x8; give --batch N or --input-sh"):
            load_network(str(path))
    network = load_network(str(path), batch=1 if batch == "N" else None)
    assert network.inputs == {"image": (IMAGE, "float32")}
    assert ("onnx.mapping" in sys.modules) == hasattr(onnx, "mapping")

    class Same(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
            conv = torch.conv2d(image, tensors["kernel"], tensors["shift"], padding=1)
            return torch.relu(conv).mean(dim=(2, 3)) @ tensors["weight"].T + tensors["bias"]

    assert_computes(network, Same())


def test_onnx_without_any_shape(onnx: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.onnx"
    save_onnx(onnx, path, batch=1, opset=17)
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    with pytest.raises(NetworkError, match="image is of unknown shape"):
        load_network(str(path))
    network = load_network(str(path), input_shapes={"image": IMAGE})
    assert network.inputs == {"image": (IMAGE, "float32")}


def save_onnx_relu(
    onnx: Any, path: Path, shape: list[Any], element: int | None = None, domain: str = ""
) -> Path:
    value = onnx.helper.make_tensor_value_info
    kind = element or onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"], domain=domain)], "relu",
        [value("x", kind, shape)], [value("y", kind, shape)],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=opset), path)
    return path


@pytest.mark.parametrize(
    ("shape", "wishes", "message"),
    [
        (["n", 4], {}, r"x is \?x4; give --batch N or --input-shape x:1x4 \("),
        (["n", 4], {"batch_option": "--input-batch"}, r"give --input-batch N or --input-shape x"),
        ([2, "length"], {}, r"x is 2x\?; give --input-shape x:2x128, with its own sizes \("),
        (["n", 3, "h", "w"], {}, r"give --input-shape x:1x3x128x128, with its own sizes \("),
        ([2, "length"], {"batch": 2}, "No input of .* has an open first size"),
        ([2, 4], {"batch": 2}, "No input of .* has an open first size.* its inputs are x 2x4"),
        (["n", 4], {"input_shapes": {"x": (1, 5)}}, r"Input x of .* is \?x4; got 1x5"),
        ([0, 4], {}, "has the shape 0x4: with a size of 0 there is nothing"),
        (["n", 4], {"batch": 0}, "batch must be 1 to 1000000; got 0"),
        (["n", 4], {"input_shapes": {"x": (10**20, 4)}}, "Sizes must be 1 to 2147483647; input x"),
        ([2, 4], {"input_dtypes": {"x": "float16"}}, "says the element types of its inputs"),
    ],
)  # fmt: skip
def test_what_a_file_leaves_open_is_asked_for(
    onnx: Any, tmp_path: Path, shape: list[Any], wishes: dict[str, Any], message: str
) -> None:
    path = save_onnx_relu(onnx, tmp_path / "relu.onnx", shape)
    with pytest.raises(NetworkError, match=message):
        load_network(str(path), **wishes)


def test_an_operator_of_an_unknown_domain_is_named_in_one_line(onnx: Any, tmp_path: Path) -> None:
    path = save_onnx_relu(onnx, tmp_path / "own.onnx", [2, 4], domain="my.ops")
    with pytest.raises(NetworkError, match=r"own\.onnx is not a valid .*my\.ops.*Relu") as raised:
        load_network(str(path))
    assert "\n" not in str(raised.value)


def test_half_precision_is_told_by_the_weights(module: torch.nn.Module, tmp_path: Path) -> None:
    half = copy.deepcopy(module).half()
    path = save_trace(half, torch.zeros(IMAGE, dtype=torch.half), tmp_path / "half.pt")
    network = load_network(str(path), input_shapes={"image": IMAGE})
    assert network.inputs == {"image": (IMAGE, "float16")}


def test_scripted_modules_are_named_as_such(tmp_path: Path) -> None:
    class Chooses(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.sum() > 0:
                return x * 2
            determinant: torch.Tensor = torch.linalg.det(x).reshape(1)
            return determinant

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(Chooses()).save(tmp_path / "script.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(NetworkError, match=r"made by torch\.jit\.script; save a trace of it"):
        load_network(str(tmp_path / "script.pt"), input_shapes={"x": (3, 3)})
    with pytest.raises(NetworkError, match=r"x is of unknown shape.*made by torch\.jit\.script"):
        load_network(str(tmp_path / "script.pt"))


def test_scripted_modules_may_be_written_as_they_are_traced(tmp_path: Path) -> None:
    """Each line that the message tells to run does what it says."""
    module, path = TinyLookup().eval(), tmp_path / "again.pt"
    inputs = (torch.zeros(1, 6, dtype=torch.int64),)
    torch.jit.trace(module, inputs).save(path)  # type: ignore[no-untyped-call]
    assert load_network(str(path), input_shapes={"ids": (1, 6)}).name == "again"
    torch.export.save(torch.export.export(module, inputs), path.with_suffix(".pt2"))
    assert load_network(str(path.with_suffix(".pt2"))).inputs["ids"] == ((1, 6), "int64")


def test_element_types_of_torchscript_may_be_given(tmp_path: Path) -> None:
    path = save_trace(TinyLookup().eval(), torch.zeros(1, 6, dtype=torch.int32), tmp_path / "i.pt")
    shapes = {"ids": (1, 6)}
    network = load_network(str(path), input_shapes=shapes, input_dtypes={"ids": "int32"})
    assert network.inputs == {"ids": ((1, 6), "int32")}
    with pytest.raises(NetworkError, match="no input called x; its inputs are ids"):
        load_network(str(path), input_shapes=shapes, input_dtypes={"x": "int32"})


def test_a_batch_alone_is_not_all_that_torchscript_lacks(
    module: torch.nn.Module, tmp_path: Path
) -> None:
    path = str(save_trace(module, torch.zeros(IMAGE), tmp_path / "tiny.pt"))
    with pytest.raises(NetworkError, match="unknown shape; give --input-shape image:2x3x224x224"):
        load_network(path, batch=2)
    with pytest.raises(NetworkError, match="A batch of 2 and the shape 1x3x8x8 of input image dis"):
        load_network(path, batch=2, input_shapes={"image": IMAGE})
    assert load_network(path, batch=1, input_shapes={"image": IMAGE}).inputs["image"][0] == IMAGE


def test_loading_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TVM's importer compiles what attention computes from its shapes."""

    class Attends(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = torch.nn.MultiheadAttention(16, 2, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mixed: torch.Tensor = self.attention(x, x, x)[0]
            return mixed

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = torch.jit.trace(Attends().eval(), torch.zeros(1, 5, 16), check_trace=False)  # type: ignore[no-untyped-call]
    trace.save(str(tmp_path / "attends.pt"))
    tried: list[object] = []
    monkeypatch.setattr("tvm.autotvm.tophub.check_backend", lambda *names: tried.append(names))
    load_network(str(tmp_path / "attends.pt"), input_shapes={"x": (1, 5, 16)})
    assert not tried


def test_sizes_that_are_known_only_when_it_runs(onnx: Any, tmp_path: Path) -> None:
    """Refused before anything is searched."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("NonZero", ["x"], ["found"]),
            onnx.helper.make_node("Shape", ["found"], ["y"]),
        ],
        "found",
        [value("x", onnx.TensorProto.FLOAT, [4])],
        [value("y", onnx.TensorProto.INT64, [2])],
    )
    path = tmp_path / "found.onnx"
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=opset), path)
    with pytest.raises(NetworkError, match="a size known only when it runs"):
        load_network(str(path))


def test_control_flow_of_onnx_is_named(onnx: Any, tmp_path: Path) -> None:
    value, make = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    kind = onnx.TensorProto.FLOAT
    branches = {
        f"{name}_branch": onnx.helper.make_graph(
            [make(operator, ["x"], [name])], name, [], [value(name, kind, [1, 4])]
        )
        for name, operator in (("then", "Relu"), ("else", "Neg"))
    }
    graph = onnx.helper.make_graph(
        [make("If", ["c"], ["y"], name="choice", **branches)],
        "chooses",
        [value("x", kind, [1, 4]), value("c", onnx.TensorProto.BOOL, [])],
        [value("y", kind, [1, 4])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=opset), tmp_path / "if.onnx"
    )
    with pytest.raises(NetworkError, match="If is node choice, which makes y"):
        load_network(str(tmp_path / "if.onnx"))


def test_inputs_that_are_no_tensors(onnx: Any, tmp_path: Path) -> None:
    value, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("SequenceAt", ["s", "i"], ["y"])],
        "sequence",
        [
            onnx.helper.make_tensor_sequence_value_info("s", kind, [2]),
            value("i", onnx.TensorProto.INT64, []),
        ],
        [value("y", kind, [2])],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    path = tmp_path / "sequence.onnx"
    onnx.save(onnx.helper.make_model(graph, ir_version=8, opset_imports=opset), path)
    with pytest.raises(NetworkError, match="All inputs must be tensors; s of"):
        load_network(str(path))


def test_a_file_that_onnx_runtime_refuses(onnx: Any, tmp_path: Path) -> None:
    """Its errors have no class in common with Python's."""
    pytest.importorskip("onnxruntime")
    path = save_onnx_relu(onnx, tmp_path / "relu.onnx", [2, 4])
    network = load_network(str(path))
    path.write_bytes(b"now something else")
    inputs = random_inputs(network, seed=0)
    outputs = [np.maximum(inputs["x"], 0)]
    comparison, against = check_outputs(network, inputs, outputs, outputs)
    assert comparison.agree
    assert against.startswith("the untuned network (not with ONNX Runtime")


def test_without_onnx_runtime_it_is_said_what_to_install(
    onnx: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    network = load_network(str(save_onnx_relu(onnx, tmp_path / "relu.onnx", [2, 4])))
    ones = [np.ones((2, 4))]
    comparison, against = check_outputs(network, {}, ones, ones)
    assert comparison.agree
    assert against == (
        "the untuned network (not with ONNX Runtime: it is not installed; `pip install "
        "onnxruntime` does that)"
    )


def test_references_compute_the_same(module: torch.nn.Module, onnx: Any, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    save_onnx(onnx, tmp_path / "tiny.onnx", batch=1, opset=17)
    trace = save_trace(module, torch.zeros(IMAGE), tmp_path / "tiny.pt")
    for path, name in (
        (tmp_path / "tiny.onnx", f"ONNX Runtime {runtime.__version__}"),
        (trace, f"PyTorch {torch.__version__}"),
    ):
        network = load_network(str(path), input_shapes={"image": IMAGE})
        assert network.reference is not None
        assert network.reference.name == name
        inputs = random_inputs(network, seed=1)
        found = deploy(network, tvm.target.Target("llvm")).run(inputs)
        comparison, against = check_outputs(network, inputs, found, found)
        assert comparison.agree
        assert comparison.max_absolute_difference > 0
        assert against == name
        wrong = [output + 1 for output in found]
        assert not check_outputs(network, inputs, wrong, wrong)[0].agree


def test_unsupported_onnx_operator_is_named(onnx: Any, tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Det", ["x"], ["y"])],
        "det",
        [value("x", onnx.TensorProto.FLOAT, [3, 3])],
        [value("y", onnx.TensorProto.FLOAT, [])],
    )
    onnx.save(onnx.helper.make_model(graph, ir_version=8), tmp_path / "det.onnx")
    with pytest.raises(NetworkError, match=r"Det is node .*, which makes y\. Replace it"):
        load_network(str(tmp_path / "det.onnx"))


def test_missing_onnx_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    (tmp_path / "some.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(MissingDependencyError, match=r"pip install -e .*\[onnx\]"):
        load_network(str(tmp_path / "some.onnx"))


def test_products_in_a_row_with_nothing_between_have_tasks(tmp_path: Path, onnx: Any) -> None:
    make, make_value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    weights = np.random.default_rng(0).standard_normal((3, 64, 64), np.float32)
    graph = onnx.helper.make_graph(
        [make("MatMul", [name, f"w{name}"], [f"{name}x"]) for name in ("x", "xx", "xxx")],
        "three",
        [make_value("x", onnx.TensorProto.FLOAT, [4, 64])],
        [make_value("xxxx", onnx.TensorProto.FLOAT, [4, 64])],
        [
            onnx.numpy_helper.from_array(array, f"w{name}")
            for array, name in zip(weights, ("x", "xx", "xxx"), strict=True)
        ],
    )
    path = tmp_path / "three.onnx"
    opset = onnx.helper.make_opsetid("", 17)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    _, counts = extract_tasks(load_network(str(path)), default_target())
    assert counts == [3]
