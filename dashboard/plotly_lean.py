"""Plotly's script, changed so that a browser is soon done with it.

As it is installed, the script holds the page's thread for a second at each visit of a browser that
has not kept it compiled. Two things take that time, and `lean` changes these alone:

- All of it is one function, handed over as an arrow. V8 reads over such a function, and reads it
  again when it is called, on the page's thread. `(function` in its place is compiled at once,
  beside that thread.
- It makes fifty kinds of trace ready. All but `READY` wait until a figure has one: the browser
  finds each in `window.ffnNasTraces` as a function of that name, and registers what it returns.

A script of another form than this is left as it is: it works all the same, and takes its second.
"""

from __future__ import annotations

import json
import re

READY = ("scatter", "bar", "heatmap")  # kinds that the pages draw; the first is of Plotly's core
LAZY = "ffnNasTraces"
_ARROWS = (
    ('self : this, () => {\n"use strict";', 'self : this, (function() {\n"use strict";'),
    ("var Plotly=(()=>{", "var Plotly=(function(){"),
)
_END, _NEW_END = "return Plotly;\n}));", "return Plotly;\n})));"
_NAME = r"[\w$]+"
_REGISTERED = re.compile(rf"\.register\(\[((?:{_NAME}\(\),)+{_NAME}\(\))\]\)")
# A module that passes another one on, as it is or with a part of its own.
_PASSES_ON = re.compile(rf'(?:"use strict";)?(?:{_NAME}\.exports|var {_NAME})=({_NAME})\(\)')
_TRACE = re.compile(r'moduleType:"trace",name:"(\w+)"|name:"(\w+)",basePlotModule:')
_BEGIN = re.compile(rf"=\w\(\({_NAME},{_NAME}\)=>\{{")
_LAST_NAME = re.compile(rf"{_NAME}$")
_LONGEST = 20  # characters of a module's name


def lean(script: str) -> str:
    """The same script, sooner done; unchanged where it has another form."""
    return _compiled_at_once(_few_traces(script))


def _compiled_at_once(script: str) -> str:
    if any(script.count(old) != 1 for old in (*(arrow for arrow, _ in _ARROWS), _END)):
        return script
    for old, new in _ARROWS:
        script = script.replace(old, new)
    return script.replace(_END, _NEW_END)


def _few_traces(script: str) -> str:
    found = _REGISTERED.findall(script)
    if len(found) != 1:
        return script
    calls = found[0].split(",")
    named = _named(script, [call.removesuffix("()") for call in calls])
    later = {name: module for module, name in named.items() if name not in READY}
    now = [call for call in calls if call.removesuffix("()") not in later.values()]
    lazy = ",".join(f"{json.dumps(name)}:()=>{module}()" for name, module in later.items())
    kept = f".register([{','.join(now)}]),window.{LAZY}={{{lazy}}}"
    return _REGISTERED.sub(lambda _: kept, script)


def _named(script: str, modules: list[str]) -> dict[str, str]:
    """Module -> the kind of trace that it is; without those of which the text does not say so.

    modules: functions that return one when they are called, by name.
    """
    begins = list(_BEGIN.finditer(script))
    ends = [*(match.start() for match in begins[1:]), len(script)]
    texts = {}
    for match, end in zip(begins, ends, strict=True):
        before = script[max(0, match.start() - _LONGEST) : match.start()]
        if name := _LAST_NAME.search(before):
            texts[name[0]] = script[match.end() : end]
    found = {}
    for module in modules:
        text = texts.get(module, "")
        while not _TRACE.search(text) and (passed := _PASSES_ON.match(text)):
            text = texts.pop(passed[1], "")  # taken out: none is followed twice
        names = {a or b for a, b in _TRACE.findall(text)}
        if len(names) == 1:
            found[module] = names.pop()
    return found
