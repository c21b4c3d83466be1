"""What a record store looks like on disk.

- `store.json`: version, content hash, the names of all other files, and per imported log how many
  of its lines ended in which bin. It is replaced in one step, last.
- `records-*.parquet`: one row per distinct program on a device, sorted by task.
- `tasks-*.parquet`: one row per workload, target, hardware parameters and device, in the order of
  their records.
- `workloads-*.parquet`: one row per compute DAG.

All files but `store.json` are named by their content and never change.
"""

import pyarrow as pa

SCHEMA_VERSION = 2
MANIFEST = "store.json"
ROWS_PER_PART = 1 << 15
ROWS_PER_GROUP = 1 << 13
COMPRESSION = {"compression": "zstd", "compression_level": 6}

RECORDS = pa.schema(
    [
        # Row of the task table.
        ("task", pa.int32()),
        # Transform steps, JSON as in a log but without spaces.
        ("steps", pa.string()),
        # One entry per measurement in each of these; the first holds the seconds of its repeats,
        # none if it failed.
        ("costs_s", pa.list_(pa.list_(pa.float64()))),
        # TVM's error numbers; 0 for success.
        ("error_nos", pa.list_(pa.int8())),
        # Unix time.
        ("timestamps_s", pa.list_(pa.int64())),
        # Places in `RecordStore.inputs`, which give source and licence; of a measurement that
        # several logs have, the first of these.
        ("inputs", pa.list_(pa.int32())),
        # Whether a calibration right after it found the machine noisy.
        ("noisy", pa.list_(pa.bool_())),
    ]
)
TASKS = pa.schema(
    [
        # Row of the workload table, and the identity found there.
        ("workload", pa.int32()),
        ("workload_id", pa.string()),
        ("device", pa.string()),
        # As in the log, with options that TVM 0.17 may refuse.
        ("target", pa.string()),
        # As many as the log's version has, up to eight.
        ("hardware_parameters", pa.list_(pa.int64())),
        ("layout_rewrite_option", pa.int8()),
        # Its records are the rows first_record to first_record + num_records.
        ("first_record", pa.int64()),
        ("num_records", pa.int64()),
    ]
)
WORKLOADS = pa.schema(
    [
        ("workload_id", pa.string()),
        # As TVM calls the DAG; not unique: TVM leaves element types out.
        ("workload_key", pa.string()),
        # As the logs call it.
        ("names", pa.list_(pa.string())),
        # `tvm.ir.save_json` of the tensors.
        ("dag", pa.string()),
        ("operator", pa.string()),
        ("flops", pa.float64()),
        # Networks it occurs in; weights are how often, null where unknown.
        ("networks", pa.list_(pa.string())),
        ("network_weights", pa.list_(pa.float64())),
        ("derived_from", pa.string()),
    ]
)
# While an import is under way: a record with its place in the log.
SPOOL = RECORDS.insert(0, pa.field("line", pa.int64()))
# And, once its row is known: that row.
PLACED = RECORDS.insert(0, pa.field("row", pa.int64()))
