"""JSON that a source other than PostgreSQL gives is JSON in the file."""

from __future__ import annotations

import pyarrow as pa

from app.formats import find
from app.sources import Batch, Field


def test_json_columns_are_json_and_their_numbers_exact() -> None:
    fields = [Field("id", "int64"), Field("data", "json"), Field("text", "text")]
    data = ['{"a":\r\n1.10, "b": [null]}', None, '"x"', "12345678901234567890.5"]
    texts = ["{}", "[1]", "null", None]
    batch = Batch([pa.array([1, 2, 3, 4]), pa.array(data), pa.array(texts)], 4)
    written = b"".join(find("jsonl")[0].writing("standard").batches(fields, [batch]))
    assert written.decode() == (
        '{"id":1,"data":{"a":  1.10, "b": [null]},"text":"{}"}\n'
        '{"id":2,"data":null,"text":"[1]"}\n'
        '{"id":3,"data":"x","text":"null"}\n'
        '{"id":4,"data":12345678901234567890.5,"text":null}\n'
    )
