"""Metal text to C++ text: the few constructs that the headers in shim/ cannot give a meaning to.

    threadgroup T x[N];                                          a reference to the executor's memory
    template [[host_name("n")]] [[kernel]] decltype(f<T>) f<T>;  an entry in the library's table of kernels
    constant T c [[function_constant(i)]];                       a constexpr, with the value given at the build
    [[threadgroup(n)]]                                           nothing: the word becomes an address space

No line is added or removed before the end, so that line markers stay right.
"""

import re
from collections.abc import Collection, Mapping

from . import source
from .errors import CompileError

_ARRAY_PARAMETER = re.compile(
    r"((?:constant|device|threadgroup)\s+(?:const\s+)?\w+\s+)(\w+)\s*\[\s*\w*\s*\](?=\s*[,)])"
)
_THREADGROUP_SPACE = "__attribute__((address_space(3))) "

Constants = Mapping[str | int, bool | int | float]


def literal(value: bool | int | float) -> str:
    """A function constant's value in C++."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def constant_value(name: str, index: int, constants: Constants) -> str:
    """The value given for a function constant, by name or index. CompileError when there is none."""
    for key in (name, index):
        if key in constants:
            return literal(constants[key])
    raise CompileError(f"function constant {name!r} (index {index}) has no value: pass constants={{{name!r}: ...}}")


def _threadgroup_variable(match: re.Match[str], strict: bool) -> str:
    kind, declarators = match[3].strip(), match[4]
    if declarators.startswith("["):  # the last word was the name
        kind, name = kind.rsplit(None, 1)
        declarators = name + declarators
    space = _THREADGROUP_SPACE if strict else ""
    result = match[1]
    for declarator in source.split_commas(declarators):
        parts = re.match(r"\s*(\w+)\s*((?:\[.*\])?)\s*$", declarator, re.DOTALL)
        if not parts:
            raise SyntaxError(f"threadgroup variable: {declarator!r}")
        name, extent = parts[1], parts[2]
        variable = f'msl::variable<msl_type_{name}, msl_tag_{name}>("{name}")'
        if strict:
            variable = f"*({space}msl_type_{name}*)&{variable}"
        result += f"typedef {kind} msl_type_{name}{extent}; struct msl_tag_{name}; "
        result += f"{space}msl_type_{name}& {name} = {variable};"
    return result + "\n" * (match[0].count("\n") - result.count("\n"))


def _entry(number: int, host_name: str, expression: str, parameters: list[source.Parameter]) -> str:
    """C++ that registers a kernel with a function that calls it with a thread's context."""
    arguments, described = [], []
    for i, parameter in enumerate(parameters):
        kind = f"typename S::template at<{i}>"
        if parameter.kind == "builtin":
            arguments.append(f"msl::builtin<{kind}>(c.{parameter.builtin})")
            continue
        dynamic = parameter.kind == "threadgroup"
        memory = "threadgroup_buffers" if dynamic else "buffers"
        arguments.append(f"msl::buffer<{kind}>(c.{memory}[{parameter.index}])")
        described.append(f'msl::describe<{kind}>("{parameter.name}", {parameter.index}, {str(dynamic).lower()})')
    table = ", ".join(described) or 'msl::Parameter{"", 0, false, false, 0}'
    this = f"msl_entry_{number}"
    return (
        f"template <class S> struct {this} {{ "
        f"static void run(const msl::ThreadContext& c) {{ {expression}({', '.join(arguments)}); }} "
        f"static inline const msl::Parameter parameters[] = {{{table}}}; }}; "
        f'static msl::Registration {this}_({{"{host_name}", &{this}<msl::Signature<decltype(&{expression})>>::run, '
        f"{this}<msl::Signature<decltype(&{expression})>>::parameters, {len(described)}}});"
    )


def rewrite(text: str, constants: Constants, strict: bool = False, only: Collection[str] = ()) -> str:
    """`text` is flattened. strict: for the type check with real address spaces, which runs nothing.

    only: the host_names to instantiate; none given means all.
    """
    kernels = source.kernels(text)
    missing = set(only) - {name for name, _ in source.host_names(text)}
    if missing:
        raise CompileError(f"no kernel has the host_name {', '.join(sorted(missing))}")

    text = source.THREADGROUP_VARIABLE.sub(lambda match: _threadgroup_variable(match, strict), text)
    text = re.sub(r"\[\[\s*threadgroup\s*\(\s*\d+\s*\)\s*\]\]", "", text)
    if strict:
        text = _ARRAY_PARAMETER.sub(r"\1*\2", text)
    text = source.FUNCTION_CONSTANT.sub(
        lambda m: f"static constexpr {m[1]} {m[2]} = {constant_value(m[2], int(m[3]), constants)};", text
    )

    def entry(number: int, host_name: str, function: str, expression: str) -> str:
        if function not in kernels:
            raise CompileError(f"host_name {host_name!r} instantiates {function!r}, which is not a kernel")
        if only and host_name not in only:
            return ""
        if strict:
            return f"static decltype(&{expression}) msl_use_{number} = &{expression};"
        return _entry(number, host_name, expression, kernels[function].parameters)

    pieces, position, number = [], 0, 0
    for one in source.instantiations(text):
        lines = "\n" * text.count("\n", one.start, one.end)
        pieces += [text[position : one.start], entry(number, one.host_name, one.function, one.expression), lines]
        position, number = one.end + 1, number + 1
    pieces.append(text[position:])
    for name, kernel in kernels.items():
        if not kernel.is_template:
            pieces.append("\n" + entry(number, name, name, f"::{name}"))
            number += 1
    return "".join(pieces) + "\n"
