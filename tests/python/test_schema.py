"""The published schema of --json: every report fits it, and it accepts nothing else."""

import copy
import importlib.resources
import json

import fakes
import jsonschema
import numpy as np
import pytest

from personaplex.respond_command import report
from personaplex.text import Tokenizer

SCHEMA = json.loads((importlib.resources.files("personaplex") / "schemas" / "respond.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def made(frames=10, max_steps=200, interrupt_at=-1, info=None):
    ids = Tokenizer.of_random()._sp.encode("hello \N{GRINNING FACE}")
    core = fakes.FakeModel(fakes.says(*ids), interrupt_at=interrupt_at, info=info)
    audio = np.zeros(frames * 1920, np.float32), 24000
    with fakes.make_model(core).respond_stream(audio, max_steps=max_steps, keep=True) as generation:
        try:
            list(generation)
        except KeyboardInterrupt:
            generation.close()
        return json.loads(json.dumps(report(generation.response(), "answer.wav", "q.wav", interrupt_at >= 0)))


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert set(SCHEMA["required"]) == set(SCHEMA["properties"])


@pytest.mark.parametrize(
    "options",
    [{}, {"max_steps": 0}, {"interrupt_at": 5}, {"interrupt_at": 0}],
    ids=["whole", "short", "cut", "none"],
)
def test_every_report_fits(options):
    VALIDATOR.validate(made(**options))


def test_the_model_tells_what_was_not_done():
    info = {"compiled": False, "compile_note": "there is no g++", "kept_16bit": ["emb.0.weight"]}
    facts = made(info=info)
    VALIDATOR.validate(facts)
    assert {key: facts["model"][key] for key in info} == info
    for key in info:
        left = {name: value for name, value in facts["model"].items() if name != key}
        assert not VALIDATOR.is_valid({**facts, "model": left})
        assert not VALIDATOR.is_valid({**facts, "model": {**left, key: 1}})


@pytest.mark.parametrize("name", SCHEMA["required"])
def test_nothing_may_be_missing_or_of_another_type(name):
    good = made()
    missing = {key: value for key, value in good.items() if key != name}
    assert not VALIDATOR.is_valid(missing)
    wrong = copy.deepcopy(good)
    wrong[name] = ["unexpected"]
    assert not VALIDATOR.is_valid(wrong)
    assert not VALIDATOR.is_valid({**good, "extra": 1})
