"""What an installation downloads, and what it takes on the disk.

`python -m benchmarks.install_size --extra tvm --before COMMIT` installs an export of this commit,
and one of the other, each into a new environment as the README's run line does, and writes
`results/install-size.json`. Sizes are those of the wheels that pip chooses on this machine; the
largest packages are listed one by one.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.provenance import RESULTS, provenance, write_json

_ROOT = Path(__file__).parents[1]
_LISTED = 12
# Disk space by distribution, asked of the environment's own Python.
_SIZES = """
import json
from importlib.metadata import distributions
sizes = {}
for distribution in distributions():
    paths = {p.locate().resolve() for p in distribution.files or ()}
    name = f"{distribution.name} {distribution.version}"
    sizes[name] = sum(p.stat().st_size for p in paths if p.is_file())
print(json.dumps(sizes))
"""


def main() -> None:
    """Measure the commits and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", default="tvm", help="extras to install (default: tvm)")
    parser.add_argument("--before", metavar="COMMIT", help="a commit to compare with")
    parser.add_argument("--out", type=Path, default=RESULTS / "install-size.json")
    args = parser.parse_args()
    commits = {"before": args.before, "after": "HEAD"} if args.before else {"after": "HEAD"}
    sizes = {when: measure(commit, args.extra) for when, commit in commits.items()}
    # What is measured is the commit, whatever the tree holds besides.
    origin = {**provenance(), "commit": sizes["after"]["commit"]}
    write_json(args.out, {**origin, "extra": args.extra, **sizes})
    for when, size in sizes.items():
        print(
            f"{when}: {size['download_bytes'] / 1e6:.0f} MB to download, "
            f"{size['disk_bytes'] / 1e6:.0f} MB on the disk, {size['packages']} packages"
        )


def measure(commit: str, extra: str) -> dict[str, Any]:
    """Install a commit with extras into a new environment; return its sizes in bytes."""
    commit = subprocess.check_output(
        ["git", "rev-parse", "--short=12", commit], cwd=_ROOT, text=True
    ).strip()
    with tempfile.TemporaryDirectory() as folder:
        tree, wheels, environment = (Path(folder) / name for name in ("tree", "wheels", "venv"))
        tree.mkdir()
        archive = subprocess.run(
            ["git", "archive", commit], cwd=_ROOT, check=True, stdout=subprocess.PIPE
        )
        subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        pip = [environment / "bin" / "python", "-m", "pip"]
        wanted = ["-q", "-c", "constraints.txt", f".[{extra}]"]
        subprocess.run([*pip, "download", "-d", wheels, *wanted], cwd=tree, check=True)
        # From pip's cache, but for building the package itself.
        install = [*pip, "install", "-q", "-c", "constraints.txt", "-e", f".[{extra}]"]
        subprocess.run(install, cwd=tree, check=True)
        sizes = json.loads(subprocess.check_output([environment / "bin" / "python", "-c", _SIZES]))
        largest = sorted(sizes.items(), key=lambda item: -item[1])[:_LISTED]
        return {
            "commit": commit,
            "download_bytes": sum(f.stat().st_size for f in wheels.iterdir()),
            "disk_bytes": _disk_bytes(environment),
            "packages": len(sizes),
            "largest_bytes": dict(largest),
        }


def _disk_bytes(folder: Path) -> int:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files)


if __name__ == "__main__":
    main()
