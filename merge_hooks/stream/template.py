"""Chat templates end: one that loops for ever, or fills the memory, is refused before a model is loaded.

A template is a program of somebody else's. Its sandbox keeps it from the machine, but not from two nested loops of
99,999 rounds each. So it is tried on a short conversation in a process of its own, which has so much time and memory
and no more. What ends there may still loop on some other conversation: engines render within a time
(`merge_hooks.machine.deadline`).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from functools import lru_cache
from typing import Any

from merge_hooks.errors import SourceError

SECONDS = 10  # of a processor; a real one takes milliseconds
WALL_SECONDS = 300  # where the machine is busy
MEMORY_BYTES = 4 << 30
# How long one conversation may take in an engine (seconds).
RENDER_SECONDS = 60.0

# As transformers renders (utils/chat_template_utils.py). Whatever else goes wrong is for the engine to say.
TRIAL = """
import json, resource, sys
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

class Generation(jinja2.ext.Extension):
    tags = {"generation"}
    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)

def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)

said = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_CPU, (said["seconds"], said["seconds"] + 1))
resource.setrlimit(resource.RLIMIT_AS, (said["memory"], said["memory"]))
made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
made.filters["tojson"] = lambda x, **options: json.dumps(x)
made.globals.update(raise_exception=raise_exception, strftime_now=lambda format: format)
tokens = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<p>", "unk_token": "<u>"}
asked = {"role": "user", "content": "Kaixo"}
turns = [asked, {"role": "assistant", "content": "Bai"}, asked]
for messages in ([asked], turns, [{"role": "system", "content": "Izan zaitez laburra."}, *turns]):
    try:
        for _ in made.from_string(said["template"]).generate(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **tokens
        ):
            pass
    except MemoryError:
        sys.exit(3)
    except Exception:
        pass
"""


def refuse_endless(template: Any, folder: str) -> None:
    """Try a template, or each of several. Raises SourceError for one that does not end, or fills the memory.

    Args:
        template: text, or what transformers takes beside it: name -> text, or a list of those.
        folder: where it came from, for the message.
    """
    texts = list(_texts(template))
    for text in texts:
        if problem := _trial(text):
            raise SourceError(
                f"{folder}: its chat template {problem} on a conversation of one turn. Is it damaged? Name another "
                "tokenizer with tokenizer=FOLDER_OR_HUB_ID, or another template with `chat_template:`."
            )


def _texts(template: Any) -> list[str]:
    if isinstance(template, str):
        return [template]
    if isinstance(template, dict):
        return [text for one in template.values() for text in _texts(one)]
    return [text for one in template for text in _texts(one)] if isinstance(template, (list, tuple)) else []


@lru_cache(maxsize=64)
def _trial(text: str) -> str:
    """What is wrong with a template, in words, or ""."""
    said = json.dumps({"template": text, "seconds": SECONDS, "memory": MEMORY_BYTES})
    try:
        ended = subprocess.run(
            [sys.executable, "-I", "-c", TRIAL], input=said.encode(), capture_output=True, timeout=WALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"does not end within {WALL_SECONDS} s"
    if ended.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"does not end within {SECONDS} s"
    return f"takes more than {MEMORY_BYTES >> 30} GB of memory" if ended.returncode == 3 else ""
