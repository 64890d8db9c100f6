"""
Builds the API pages of the three packages with pdoc. A warning is an error.

```bash
python model_cards/api.py runs/api
```

Needs the extra `docs`. The first page is `index.html`.
"""

import argparse
import importlib
import pkgutil
import warnings
from pathlib import Path

PACKAGES = ("action_llm", "action_llm_datasets", "action_llm_recipes")


def build(folder: Path, packages: tuple[str, ...] = PACKAGES) -> None:
    """
    Writes the API pages of some packages.

    Args:
        folder: folder of the pages, created if it is missing.
        packages: names of the packages.

    Raises:
        Warning: if pdoc cannot import a module, evaluate an annotation, or parse a module's source.
    """
    import pdoc

    # Modules are imported before, so that warnings of other libraries are no errors.
    for name in packages:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            importlib.import_module(module.name)
    pdoc.render.configure(docformat="google", show_source=False, footer_text="ActionLLM")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Dataclasses that are made at run time have no source, which pdoc needs only for links to it.
        warnings.filterwarnings("ignore", "Cannot determine where .* is taken from")
        pdoc.pdoc(*packages, output_directory=folder)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.strip().split("\n")[0])
    parser.add_argument("folder", type=Path, help="folder of the pages")
    build(parser.parse_args(words).folder)


if __name__ == "__main__":
    main()
