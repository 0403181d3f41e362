"""Reads what the W&B SDK wrote offline: a LevelDB log of protobuf records."""

import json
import struct
import time
import zlib

BLOCK = 32 * 1024
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def chunks(data):
    """The payload of each complete record: chunks of one block each, joined; a wrong checksum raises.

    Where just the seven bytes of a header are left in a block, the first chunk of a record there is empty.
    """
    assert data[:4] == b":W&B"[: len(data)]
    position, payload = 7, None
    while position + 7 <= len(data):
        rest_of_block = BLOCK - position % BLOCK
        if rest_of_block < 7:
            position += rest_of_block
            continue
        checksum, length, kind = struct.unpack("<IHB", data[position : position + 7])
        chunk = data[position + 7 : position + 7 + length]
        if len(chunk) < length:
            return
        assert zlib.crc32(chunk, zlib.crc32(bytes([kind]))) == checksum
        assert (kind in (FULL, FIRST)) == (payload is None)
        payload = (payload or b"") + chunk
        position += 7 + length
        if kind in (FULL, LAST):
            yield payload
            payload = None


def records(path, *, timeout=20.0):
    """All records of the `.wandb` file of a finished run, as `wandb_internal_pb2.Record`.

    The SDK's own process may still be writing when `Run.finish` returns: the record `exit` is the last.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + timeout
    while True:
        found = [Record.FromString(payload) for payload in chunks(path.read_bytes())]
        if found and found[-1].WhichOneof("record_type") == "exit":
            return found
        assert time.monotonic() < deadline, f"{path} has no end after {timeout} s"
        time.sleep(0.01)


def _values(items):
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


class OfflineRun:
    """What one `.wandb` file says: history, summary, config and so on."""

    def __init__(self, path):
        by_kind = {}
        for record in records(path):
            kind = record.WhichOneof("record_type")
            by_kind.setdefault(kind, []).append(getattr(record, kind))
        rows = [_values(history.item) for history in by_kind.get("history", [])]
        self.history = [{key: value for key, value in row.items() if key[0] != "_"} for row in rows]
        self.summary = {}
        for summary in by_kind.get("summary", []):
            self.summary |= _values(summary.update)
        self.run = by_kind["run"][0]
        self.config = {key: value for key, value in _values(self.run.config.update).items() if key != "_wandb"}
        self.step_metrics = {metric.name: metric.step_metric for metric in by_kind.get("metric", [])}
        self.exit_codes = [end.exit_code for end in by_kind.get("exit", [])]
        self.artifacts = by_kind.get("artifact", [])


def offline_runs(folder):
    """The offline runs in a run folder, oldest first."""
    return [
        OfflineRun(path)
        for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime_ns)
    ]
