import hashlib

import pytest

from epigen_utils import paths
from epigen_utils.data import registry
from epigen_utils.errors import DataError

ENTRY = """
{name}:
  title: A set
  species: mus_musculus
  kind: annotation
  real: true
  licence: MIT
  citation: nobody
  card: nothing
  files:
    genes: {{{source}}}
"""


BYTES = b"gene\tsymbol\n"


SHA = hashlib.sha256(BYTES).hexdigest()


def entry(source, name="one"):
    return ENTRY.format(name=name, source=source.replace("{SHA}", SHA))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("licence:", "licnce:"), "one: unknown key 'licnce'; did you mean 'licence'?"),
        (("  citation: nobody\n", ""), "one: missing 1 required positional argument: 'citation'"),
        (("annotation", "anotation"), "one: kind 'anotation'; did you mean 'annotation'?"),
        (("sha256", "sha265"), "one: files: genes: unknown key 'sha265'"),
        ((SHA, "0123"), "sha256 83; give 64 hexadecimal digits"),
        (("  files:", "  stated: {record: {genes: 1}}\n  files:"), "one: stated: unknown key 'record'"),
        (("  files:", "  stated: {records: {gene: 1}}\n  files:"), "'gene' is no file of it; did you mean 'genes'?"),
        (("  files:", "  stated: {records: {genes: ~3}}\n  files:"), "genes: '~3'; write a number, or a range"),
        (("url: u,", ""), "0 sources"),
        (("url: u,", "url: u, bundled: b,"), "2 sources"),
    ],
)
def test_a_typo_in_the_registry_is_named(change, said):
    with pytest.raises(DataError, match=r"^reg\.yml") as caught:
        registry.parse_registry(entry("url: u, sha256: {SHA}").replace(*change), "reg.yml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(DataError, match="did you mean 'pasilla'"):
        registry.entry("pasila")


def test_a_simulated_set_brings_what_it_is_made_from():
    assert registry.with_bases(["airway-as-mouse", "/my/own.h5ad", "airway"]) == ["airway-as-mouse", "airway"]


def test_cards_are_written_from_the_registry():
    assert (paths.DATA / "README.md").read_text() == registry.data_cards(), "run make cards"
