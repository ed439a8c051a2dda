"""The archive that holds an OpenVINO model: its two files, graph and weights, in one uncompressed zip."""

import io
import zipfile

from tasks.errors import ArtifactUnreadable

MAGIC = b"PK\x03\x04"
"""First bytes of an archive."""

_GRAPH, _WEIGHTS = "model.xml", "model.bin"
_WHEN = (1980, 1, 1, 0, 0, 0)
"""The time that every entry bears: the earliest that a zip can, so that equal models are equal files."""


def packed(graph: bytes, weights: bytes) -> bytes:
    """Packs a model.

    Args:
        graph: Content of the .xml file of OpenVINO's IR.
        weights: Content of the .bin file beside it.

    Returns:
        Content of the archive, the same bytes for the same model. `unzip` gives two files that OpenVINO reads.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((_GRAPH, graph), (_WEIGHTS, weights)):
            archive.writestr(zipfile.ZipInfo(name, _WHEN), data)
    return file.getvalue()


def unpacked(data: bytes) -> tuple[bytes, bytes]:
    """Takes an archive apart.

    Args:
        data: Content of the archive.

    Returns:
        Contents of the graph's file and of the weights' file.

    Raises:
        ArtifactUnreadable: If it is no zip, is cut off, has a wrong checksum, or lacks one of the files.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.read(_GRAPH), archive.read(_WEIGHTS)
    # What zipfile raises of damaged headers depends on the field that is damaged.
    except (zipfile.BadZipFile, KeyError, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise ArtifactUnreadable(f"the artifact is not a whole OpenVINO archive: {error}") from error
