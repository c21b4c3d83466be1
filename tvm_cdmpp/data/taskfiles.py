"""TenSet's task files, `network_info/((NETWORK,[(SHAPE)]),KIND).task.pkl`.

Unpickling may run any code, so the file is not unpickled: what is wanted of it are texts, a task's
DAG followed by its workload key, and those are read off the stream. How often a task occurs in its
network is an object there, and is left unknown.
"""

import pickletools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tvm_cdmpp.errors import RecordError

TASK_FILE = re.compile(r"\(\((?P<network>\w+),\[(?P<shapes>.+)\]\),\w+\)\.task\.pkl")
_HASH_KEY = re.compile(r'\["[0-9a-f]{32}",')


def read_task_file(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the tasks of a network as a file of workloads has them (see `data.workloads`).

    Raises
    ------
    RecordError
        The file is cut off, or no pickle.
    """
    named = TASK_FILE.fullmatch(path.name)
    network = f"{named['network']} {named['shapes']}" if named else path.name
    dag = ""
    with path.open("rb") as file:
        try:
            for _, text, _ in pickletools.genops(file):
                if not isinstance(text, str):
                    continue
                if text.startswith("{") and '"PlaceholderOp"' in text:
                    dag = text
                elif dag and _HASH_KEY.match(text):
                    yield {
                        "workload_key": text,
                        "files": "*",
                        "dag": dag,
                        "derived_from": f"{network}, TenSet",
                        "networks": {network: None},
                    }
                    dag = ""
        except ValueError as error:
            raise RecordError(f"{path} cannot be read as a task file: {error}") from error
