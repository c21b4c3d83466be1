"""Where weights are; known without torch, so that a wrong name is told at once."""

from pathlib import Path

from tvm_cdmpp.errors import CheckpointError

WEIGHTS = ("shipped", "evaluation")


def find_weights(name: str | Path) -> Path:
    """Return the file of one of `WEIGHTS`, or the file that is named.

    Raises
    ------
    CheckpointError
        There is none.
    """
    if name in WEIGHTS:
        return Path(__file__).with_name("weights") / f"{name}.safetensors"
    file = Path(name)
    if not file.exists():
        raise CheckpointError(
            f"No weights '{name}': neither a file nor one of {', '.join(WEIGHTS)}."
        )
    return file
