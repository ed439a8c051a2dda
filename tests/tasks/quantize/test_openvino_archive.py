"""An archive is a plain zip of two files, the same bytes for the same model, and says when it is damaged."""

import io
import zipfile

import pytest

from tasks.errors import ArtifactUnreadable
from tasks.quantize.openvino_archive import packed, unpacked

GRAPH, WEIGHTS = b"<net/>", bytes(range(256)) * 4


def test_what_is_packed_is_unpacked():
    assert unpacked(packed(GRAPH, WEIGHTS)) == (GRAPH, WEIGHTS)


def test_equal_models_are_equal_files_whenever_they_are_packed(monkeypatch):
    before = packed(GRAPH, WEIGHTS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    assert packed(GRAPH, WEIGHTS) == before


def test_any_zip_program_finds_an_ir_of_two_uncompressed_files():
    with zipfile.ZipFile(io.BytesIO(packed(GRAPH, WEIGHTS))) as archive:
        assert archive.namelist() == ["model.xml", "model.bin"]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
        lambda data: data.replace(b"model.bin", b"motel.bin"),
    ],
    ids=["empty", "magic alone", "half", "cut by one byte", "a flipped bit", "another zip"],
)
def test_damage_is_found(damage):
    with pytest.raises(ArtifactUnreadable, match="not a whole OpenVINO archive"):
        unpacked(damage(packed(GRAPH, WEIGHTS)))
