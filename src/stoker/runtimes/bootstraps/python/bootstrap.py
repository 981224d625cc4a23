"""Entry point of the Python runtimes: sys.path and environment as in AWS Lambda, then the runtime loop.

Started as ``python3.N -S /var/runtime/bootstrap.py``: the host's own site-packages are not the function's.
Kept small because a script is compiled at every start; what it imports comes from compiled files.
"""

# ruff: noqa: PLC0415 - what a start does not need is imported where it is used

import os
import sys


def _python_directories():
    version = "python{}.{}".format(*sys.version_info[:2])
    return [f"/opt/python/lib/{version}/site-packages", "/opt/python"], version


def _set_path():
    # Precedence as in Lambda: the task, layers (unless the function sets PYTHONPATH itself), the runtime.
    layers, version = _python_directories()
    task = os.environ.get("LAMBDA_TASK_ROOT") or os.getcwd()
    if "PYTHONPATH" in os.environ:
        layers_on_path = []
    else:
        layers_on_path = layers
        os.environ["PYTHONPATH"] = os.environ.get("LAMBDA_RUNTIME_DIR") or sys.path[0]
    sys.path[0:0] = [task, *layers_on_path]
    lang = f"/var/lang/lib/{version}/site-packages"
    if os.path.isdir(lang) and lang not in sys.path:
        sys.path.append(lang)
    _add_sites([task, *layers])


def _add_sites(folders):
    """Honour ``.pth`` files as site.addsitedir does; the site module is loaded only where there are some."""
    for folder in folders:
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        if any(name.endswith(".pth") for name in names):
            import site

            site.addsitedir(folder)


def _add_site_builtins():
    """``exit``, ``quit`` and friends, which the site module would define."""
    import _sitebuiltins
    import builtins

    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.copyright = _sitebuiltins._Printer("copyright", sys.copyright)
    builtins.credits = _sitebuiltins._Printer("credits", "See www.python.org for more information.")
    builtins.license = _sitebuiltins._Printer("license", "See https://www.python.org/psf/license/")
    builtins.help = _sitebuiltins._Helper()


def main():
    """Prepare the interpreter and serve invocations until the process ends."""
    from stoker_runtime import bootstrap  # found beside this file, before the function's folders come first

    _add_site_builtins()
    if os.environ.get("STOKER_POOLED") == "zygote":
        from stoker_runtime import zygote

        zygote.serve()  # returns in its children: what follows is theirs
    client = bootstrap.connect(os.environ["AWS_LAMBDA_RUNTIME_API"])
    if "STOKER_POOLED" in os.environ:
        bootstrap.wait_for_assignment(client)
    _set_path()
    bootstrap.run(os.environ["_HANDLER"], client)


main()
