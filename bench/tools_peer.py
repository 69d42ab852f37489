"""Runs a script of another program's checkout as it is: python bench/tools_peer.py SD_SCRIPTS SCRIPT ARGUMENTS…

sd-scripts' folder goes into the module path, as both programs' scripts want it. What only pictures need (torchvision) is replaced by nothing where it isn't installed.
"""

import importlib.machinery
import importlib.util
import pathlib
import runpy
import sys
import types


class Nothing(types.ModuleType):
    """A module in which every name is there and does nothing."""
    __path__: list = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return Nothing(name)

    def __call__(self, *args, **kwargs):
        return self


class NothingFinder:
    """Finds torchvision where nothing else did."""

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == "torchvision" else None

    def create_module(self, spec):
        return Nothing(spec.name)

    def exec_module(self, module):
        pass


def main() -> None:
    root, script = sys.argv[1:3]
    sys.meta_path.append(NothingFinder())
    sys.path[:0] = [str(pathlib.Path(script).resolve().parent), root]
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
