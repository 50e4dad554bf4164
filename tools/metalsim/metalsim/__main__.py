"""`python3 -m metalsim`: builds, checks and translates kernel files for programs that are not Python."""

import argparse
import sys

from . import CompileError, ToolError, build, runtime, typecheck


def main() -> int:
    parser = argparse.ArgumentParser(prog="metalsim", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("runtime", help="print the path of the runtime's shared object (interface: runtime/metalsim.h)")
    for name, what in (
        ("build", "print the path of the shared object of a kernel file"),
        ("typecheck", "compile under MSL's rules, run nothing"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("file", help="the kernel file, - for standard input")
        command.add_argument("-D", action="append", default=[], metavar="NAME=VALUE", dest="defines")
        command.add_argument("-I", action="append", default=[], metavar="FOLDER", dest="include")
        if name == "build":
            command.add_argument("--check", action="store_true", help="with all checkers")
    options = parser.parse_args()
    try:
        if options.command == "runtime":
            print(runtime())
            return 0
        source = sys.stdin.read() + "\n" if options.file == "-" else options.file
        if options.command == "build":
            print(build(source, options.check, defines=options.defines, include=options.include))
        else:
            typecheck(source, defines=options.defines, include=options.include)
    except (CompileError, ToolError) as e:
        print(e, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
