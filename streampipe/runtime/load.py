"""Finding the processor in a module: by dotted name or by file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from streampipe.blame import users_line
from streampipe.errors import ModuleError, StreampipeError
from streampipe.processor import Processor


def load_processor(target: str) -> Processor:
    """The processor of "package.module", "package.module:name", "path/file.py" or "path/file.py:name".

    Without a name the module must hold exactly one processor. The current folder is importable. Raises ModuleError
    with the place of the mistake; an error that the topology itself raised (TopologyError...) comes as it is.
    """
    where, _, name = target.partition(":")
    module = _import_file(Path(where)) if where.endswith(".py") else _import_module(where)
    return _named(module, where, name) if name else _only(module, where)


def _named(module: ModuleType, where: str, name: str) -> Processor:
    found = getattr(module, name, None)
    if not isinstance(found, Processor):
        what = "nothing of that name" if found is None else f"{name} is a {type(found).__name__}"
        raise ModuleError(f"{where} holds no processor {name!r}: {what}; one looks like: {name} = Processor(...)")
    return found


def _only(module: ModuleType, where: str) -> Processor:
    found = {id(value): (name, value) for name, value in vars(module).items() if isinstance(value, Processor)}
    if len(found) == 1:
        return next(iter(found.values()))[1]
    if not found:
        raise ModuleError(f"{where} holds no processor; one looks like: processor = Processor('my-app')")
    names = ", ".join(sorted(name for name, _ in found.values()))
    raise ModuleError(f"{where} holds several processors ({names}); choose one with {where}:NAME")


def _see_working_folder() -> None:
    """What a module imports from the working folder is found, however Python was started."""
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))


def _import_module(name: str) -> ModuleType:
    _see_working_folder()
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ModuleError(
                f"module {name!r} cannot be found from {Path.cwd().name}/; give its dotted name or its file, like "
                f"processors/flights.py"
            ) from error
        raise _broken(name, error) from error
    except StreampipeError:
        raise
    except Exception as error:
        raise _broken(name, error) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ModuleError(f"file {str(path)!r} does not exist")
    _see_working_folder()
    # Named by its path, so that two files of the same name do not meet in sys.modules.
    name = "streampipe_processor_" + "_".join(path.resolve().with_suffix("").parts[1:])
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ModuleError(f"file {str(path)!r} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their own module
    try:
        spec.loader.exec_module(module)
    except StreampipeError:
        sys.modules.pop(name, None)
        raise
    except Exception as error:
        sys.modules.pop(name, None)
        raise _broken(str(path), error) from error
    return module


def _broken(target: str, error: Exception) -> ModuleError:
    if isinstance(error, SyntaxError) and error.filename:
        place = f"{Path(error.filename).name}:{error.lineno}"
        return ModuleError(f"{target} cannot be imported: {place}: {type(error).__name__}: {error.msg}")
    where = users_line(error)
    place = f"{Path(where[0].co_filename).name}:{where[1]}: " if where is not None else ""
    text = " ".join(str(error).split())
    return ModuleError(f"{target} cannot be imported: {place}{type(error).__name__}: {text}")
