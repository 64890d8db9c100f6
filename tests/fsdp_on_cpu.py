"""
Runs a recipe with accelerate's FSDP on CPU processes, where accelerate would switch it off and train data-parallel instead.

    recipe_on_two_ranks("fsdp_on_cpu.py", "recipes/sft.py", "--option", …)

The settings are those of `recipes/accelerate_configs/fsdp.yaml`, as `accelerate launch` passes them to its processes.
"""

import os
import runpy
import sys
from pathlib import Path

import yaml

CONFIG = Path(__file__).resolve().parents[1] / "recipes" / "accelerate_configs" / "fsdp.yaml"


def main():
    os.environ["ACCELERATE_USE_FSDP"] = "true"
    for name, value in yaml.safe_load(CONFIG.read_text())["fsdp_config"].items():
        os.environ[name.upper()] = str(value)

    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    initialize = AcceleratorState.__init__

    def initialize_with_fsdp(self, *arguments, fsdp_plugin=None, **options):
        initialize(self, *arguments, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = fsdp_plugin

    AcceleratorState.__init__ = initialize_with_fsdp
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
