"""The format `tflite`: flatbuffers that LiteRT runs."""

from tasks.quantize.audit import audit
from tasks.quantize.formats.base import Format, register
from tasks.quantize.structure import structure_sha256

register(Format("tflite", audit, structure_sha256))
