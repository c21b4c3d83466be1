"""TLP and MTL-TLP (Zhai et al., ASPLOS 2023), after the paper and its code.

Steps of a schedule go through four layers, one of multi-head attention with a residual, and two
residual layers; a head turns each step into a number, and their sum is the score. It learns the
order of programs by LambdaRank. MTL-TLP has a head for each device; a program trains that of the
device it was measured on.

What differs from the original in `paper` settings:

- Kinds of primitives, 14 in place of 11; see `benchmarks.primitives`.
- CPU and GPU programs have networks of their own, as in the original, but one model holds both, and
  `tlp` learns from all devices at once: the original trains a model per device, or MTL-TLP.
- Programs are ranked against those of a minibatch that were measured on the same device; a
  minibatch holds several devices. Weights of pairs are divided by their sum.
- How many minibatches of 1024 there are is that of `Training.steps`; 50 passes in the original.
- Seconds come from a line through the scores of training programs, so only the order of the
  programs of a task says anything about the method. MTL-TLP has no head for a device that it did
  not see in training: the mean of the others' of its kind takes its place.

`tuned` settings learn the logarithm of the latency, from where the analytic estimate is, for steps
do not tell devices apart, and the order within tasks. They see logarithms of numbers, leave padding
out of attention and sum, and are half as wide.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from benchmarks.primitives import KINDS, Primitives, read_primitives
from benchmarks.stored import StoredPrograms
from tvm_cdmpp.devices import DeviceSpec
from tvm_cdmpp.models import (
    Content,
    Ints,
    Prediction,
    TrainingRows,
    torch_threads,
    write_checkpoint,
)
from tvm_cdmpp.models.baselines import (
    LatencyScale,
    ProgramNetwork,
    Training,
    inputs_of_rows,
    layers_of,
    score_layer,
    train,
)

_SIZES = {"CPU": (25, 11), "GPU": (40, 9)}
"""Steps of a program, and arguments of a step, that are kept."""
_WINDOW = 1 << 14
_CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class TLPConfig:
    """Size and kind of the network."""

    width: int = 256
    attention_heads: int = 8
    residual_layers: int = 2
    by_device: bool = False
    """A head for each device: MTL-TLP."""
    logarithms: bool = False
    """See sign(x) log2(1 + |x|) of arguments."""
    masked: bool = False
    """Leave padding out."""


SETTINGS: dict[str, tuple[TLPConfig, Training]] = {
    "paper": (
        TLPConfig(),
        Training(
            loss="none",
            ranked="machine",
            batch_size=1024,
            group_size=1,
            learning_rate=7e-4,
            schedule="constant",
            optimizer="adam",
            weight_decay=1e-6,
            gradient_clip=0.5,
        ),
    ),
    "tuned": (TLPConfig(width=128, logarithms=True, masked=True), Training(over_estimate=True)),
}


@dataclass(frozen=True)
class StepInputs:
    """Inputs of B programs."""

    primitives: Primitives
    kinds: npt.NDArray[np.str_]
    """`CPU` or `GPU`; (B,)."""
    devices: npt.NDArray[np.str_]
    """Names of their devices; (B,)."""
    log_analytic_s: npt.NDArray[np.float64]
    """See `Estimated`; 0 where it is not used."""


class _Trunk(nn.Module):
    """Steps of the programs of one kind of device, (B, steps, numbers), to (B, steps, width)."""

    def __init__(self, config: TLPConfig, kind: str) -> None:
        super().__init__()
        self.config = config
        width = config.width
        numbers = len(KINDS) + _SIZES[kind][1]
        self.encoder = layers_of(numbers, width // 4, width // 2, width, width)
        self.attention = nn.MultiheadAttention(width, config.attention_heads, batch_first=True)
        self.residual = nn.ModuleList(
            layers_of(width, width) for _ in range(config.residual_layers)
        )

    def forward(self, steps: Tensor, padding: Tensor | None) -> Tensor:
        if self.config.logarithms:
            numbers = steps[..., len(KINDS) :]
            scaled = torch.sign(numbers) * torch.log2(1.0 + numbers.abs())
            steps = torch.cat([steps[..., : len(KINDS)], scaled], dim=-1)
        hidden: Tensor = self.encoder(steps)
        attended, _ = self.attention(
            hidden, hidden, hidden, key_padding_mask=padding, need_weights=False
        )
        hidden = hidden + attended
        for layer in self.residual:
            hidden = hidden + layer(hidden)
        return hidden


class TLPNetwork(ProgramNetwork[StepInputs]):
    """The network: a trunk and a head for each kind of device, or a head for each device."""

    def __init__(self, config: TLPConfig, devices: list[DeviceSpec]) -> None:
        super().__init__()
        self.config = config
        kinds = {device.name: _kind(device) for device in devices}
        self.kind_of = kinds if config.by_device else {kind: kind for kind in kinds.values()}
        """Kind of device of each head, by its name: that of its device, or its kind."""
        width = config.width
        self.trunks = nn.ModuleDict(
            {kind: _Trunk(config, kind) for kind in dict.fromkeys(self.kind_of.values())}
        )
        self.heads = nn.ModuleList(  # names of devices may hold dots
            nn.Sequential(layers_of(width, width, width // 2, width // 4), score_layer(width // 4))
            for _ in self.kind_of
        )

    def fit_scale(self, inputs: StepInputs) -> None:
        """Do nothing: steps are taken as they are."""

    def scores(self, inputs: StepInputs, programs: Ints) -> Tensor:
        """Return z; see `ProgramNetwork`. 0 for a kind of device that was never trained on."""
        scores = torch.zeros(len(programs), device=next(self.parameters()).device)
        for kind in self.trunks:
            places = np.flatnonzero(inputs.kinds[programs] == kind)
            if places.size:
                found = self._of_kind(inputs, programs[places], kind)
                scores = scores.index_copy(0, torch.from_numpy(places).to(scores.device), found)
        return scores

    def _of_kind(self, inputs: StepInputs, programs: Ints, kind: str) -> Tensor:
        device = next(self.parameters()).device
        steps = torch.from_numpy(inputs.primitives.padded(programs, *_SIZES[kind])).to(device)
        if self.config.masked:
            is_step = steps.any(dim=2)
            is_step[:, 0] = True  # of a program without steps
            longest = int(is_step.sum(dim=1).max())
            steps, is_step = steps[:, :longest], is_step[:, :longest]
            hidden = self.trunks[kind](steps, ~is_step)
        else:
            is_step = steps.new_ones(steps.shape[:2])
            hidden = self.trunks[kind](steps, None)
        scores: Tensor = hidden.new_zeros(len(hidden))
        for name in np.unique(inputs.devices[programs]).tolist():
            places = torch.from_numpy(np.flatnonzero(inputs.devices[programs] == name)).to(device)
            heads = [head(hidden[places])[..., 0] for head in self._heads_of(name, kind)]
            found = (torch.stack(heads).mean(dim=0) * is_step[places]).sum(dim=1)
            scores = scores.index_copy(0, places, found)
        return scores

    def _heads_of(self, device: str, kind: str) -> list[nn.Module]:
        """Return the head of a device, or all of its kind where it has none."""
        of_kind = {n: head for n, head in enumerate(self.kind_of) if self.kind_of[head] == kind}
        own = [n for n, head in of_kind.items() if head in (device, kind)]
        return [self.heads[n] for n in own or of_kind]


@dataclass
class TLP:
    """TLP, a `StoreModel`."""

    config: TLPConfig
    training: Training
    network: TLPNetwork | None = None
    scale: LatencyScale = field(default_factory=LatencyScale)
    programs_seen: int = 0

    @staticmethod
    def untrained(setting: str, *, by_device: bool = False) -> "TLP":
        """Return a fresh model in one of `SETTINGS`."""
        config, training = SETTINGS[setting]
        return TLP(TLPConfig(**{**asdict(config), "by_device": by_device}), training)

    def fit(self, programs: StoredPrograms, *, seed: int, torch_device: str = "cpu") -> None:
        """Train from scratch; see `StoreModel`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = TLPNetwork(self.config, list(programs.rows.devices))
        rows, primitives = programs.rows, read_primitives(programs.store, programs.used)

        def read(chosen: Ints) -> StepInputs:
            return self._inputs(rows, primitives.take(chosen), chosen)

        trained = train(self.network, rows, read, self.training, None, seed, torch_device)
        self.scale, self.programs_seen = trained.scale or self.scale, trained.programs_seen

    def predict(self, programs: StoredPrograms) -> Prediction:
        """Predict on one thread; see `StoreModel`."""
        if self.network is None:
            raise ValueError("fit TLP first")
        log_s = np.empty(len(programs.rows))
        with torch_threads(1), torch.inference_mode():
            for first in range(0, len(log_s), _WINDOW):
                window = np.arange(first, min(first + _WINDOW, len(log_s)))
                primitives = read_primitives(programs.store, programs.used[window])
                inputs = self._inputs(programs.rows, primitives, window)
                parts = np.split(window - first, range(_CHUNK, len(window), _CHUNK))
                scores = torch.cat([self.network.scores(inputs, part) for part in parts])
                log_s[window] = self.scale.origin(inputs) + self.scale.mean
                log_s[window] += self.scale.std * scores.numpy().astype(np.float64)
        return Prediction(np.exp(np.clip(log_s, -80.0, 80.0)), np.ones(len(log_s)))

    def save(self, path: Path) -> None:
        """Write weights and settings."""
        if self.network is None:
            raise ValueError("fit TLP first")
        arrays = {name: value.numpy() for name, value in self.network.state_dict().items()}
        settings = {"config": asdict(self.config), "heads": self.network.kind_of}
        write_checkpoint(path, Content(settings | {"scale": asdict(self.scale)}, arrays))

    def _inputs(self, rows: TrainingRows, primitives: Primitives, chosen: Ints) -> StepInputs:
        """Prepare some rows, given their primitives."""
        devices = rows.devices
        return StepInputs(
            primitives,
            np.array([_kind(device) for device in devices])[rows.machine_of[chosen]],
            np.array([device.name for device in devices])[rows.machine_of[chosen]],
            inputs_of_rows(rows, chosen).log_analytic_s
            if self.training.over_estimate
            else np.zeros(len(chosen)),
        )


def _kind(device: DeviceSpec) -> str:
    return "CPU" if device.kind == "cpu" else "GPU"
