#!/usr/bin/env python
"""Django's command line, for the example project."""

import os
import sys
from pathlib import Path

# Started as a script, Python would look for modules beside this file, and find each of them under a second name.
sys.path[0] = str(Path(__file__).resolve().parent.parent)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "example_project.settings")
    from django.core.management import execute_from_command_line  # noqa: PLC0415 - needs the line above

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
