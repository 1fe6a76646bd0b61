"""Configuration templates: `#if WORD`, `#if not WORD`, `#end` on lines of their own (a comment in all of the languages here) and @WORD@."""
import os
import re

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "templates")
CONDITION = re.compile(r"^\s*#(?:if\s+(?P<negated>not\s+)?(?P<word>[A-Z_]+)|(?P<end>end))\s*$")


class TemplateError(Exception):
    pass


def expand(text, variables, name="template"):
    """A condition is true when its variable is there and true; a word between @ must be there."""
    out, stack = [], []
    for number, line in enumerate(text.splitlines(), 1):
        m = CONDITION.match(line)
        if m and m.group("end"):
            if not stack:
                raise TemplateError(f"{name}:{number}: #end without #if")
            stack.pop()
        elif m:
            stack.append(bool(variables.get(m.group("word"))) != bool(m.group("negated")))
        elif all(stack):
            def value(w):
                if w.group(1) not in variables:
                    raise TemplateError(f"{name}:{number}: nothing is known of @{w.group(1)}@")
                return str(variables[w.group(1)])
            out.append(re.sub(r"@([A-Z][A-Z_]*)@", value, line))
    if stack:
        raise TemplateError(f"{name}: #if without #end")
    return "\n".join(out) + "\n"


def render(name, variables):
    with open(os.path.join(HERE, name)) as f:
        return expand(f.read(), variables, name)
