"""The host's description is stable and plain."""

import json

from tasks.host import this_host


def test_the_fingerprint_is_the_same_each_time():
    assert this_host().fingerprint == this_host().fingerprint


def test_the_properties_are_plain_json():
    properties = this_host().properties
    assert json.loads(json.dumps(properties)) == properties


def test_the_description_names_what_latency_depends_on():
    properties = this_host().properties
    assert properties["logical_cpus"] >= properties["usable_cpus"] >= 1
    assert properties["memory_gib"] >= 1
    assert "ai-edge-litert" in properties["runtimes"]["litert"]
