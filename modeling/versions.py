"""The version of this package, and the tested versions of other libraries."""

import importlib.metadata

from packaging.specifiers import SpecifierSet

__version__ = "0.2.0"

# The ranges of setup.cfg for libraries whose changes have broken this code before.
TESTED = {
    "transformers": ">=5.16.1,<5.25",
    "torch": ">=2.13,<2.15",
    "peft": ">=0.21,<0.22",
}


def untested_versions() -> list[str]:
    """A sentence for each installed library whose version is outside the tested range."""
    sentences = []
    for name, tested in TESTED.items():
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if not SpecifierSet(tested).contains(version, prereleases=True):
            sentences.append(
                f"{name} {version} is installed, and ActionLLM {__version__} was tested with {name}{tested}."
            )
    return sentences


def check_major_version():
    """Raises `ImportError` with transformers 4, in which most names that this code uses are different."""
    if importlib.metadata.version("transformers").startswith("4."):
        raise ImportError(untested_versions()[0])


__all__ = ["TESTED", "__version__", "check_major_version", "untested_versions"]
