"""Config files from Jinja2 templates, where jinja2 is installed.

Rules:
1. Sandboxed: a template may come from a folder that somebody else can write into, and is rendered by root.
2. Variables of the environment are names, all of them together are `env`. One that is missing is an error, unless the
   template asks whether it `is defined` or gives a `default`.
3. Others are included by their names below the template's own folder.
4. No value is in any message: only names that stand in the template, and the line.
"""

from __future__ import annotations

import re

from cleanup_guard._cli._words import Mistake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jinja2 import Environment, Template

UNDEFINED = re.compile(r"'([A-Za-z_][A-Za-z0-9_]*)' is undefined")


def render(source: str, text: str, env: Mapping[str, str], read: Callable[[str], str]) -> str:
    """Render one template.

    Args:
        source: what it is called, for messages.
        text: what is in it.
        env: the variables.
        read: reads another template by its name, to be included.

    Raises:
        Mistake: jinja2 is not installed, or the template cannot be rendered.
    """
    try:
        import jinja2
    except ImportError:
        raise Mistake(
            f"--template {source} is a Jinja2 template, and jinja2 is not installed here: pip install 'cleanup-guard[jinja]'"
        ) from None
    try:
        return _template(text, read).render({**env, "env": env})
    except jinja2.TemplateSyntaxError as error:
        raise Mistake(f"{source}, line {error.lineno}: that is no Jinja2") from None
    except jinja2.TemplateNotFound as error:
        raise Mistake(f"{source}: there is no template {error.name!r} to include") from None
    except Mistake:
        raise
    except jinja2.UndefinedError as error:
        found = UNDEFINED.fullmatch(error.message or "")
        if found is None or found[1] in env:
            raise Mistake(_unrendered(source, error)) from None
        raise Mistake(f"missing environment variable: {found[1]} ({_place(source, error)})") from None
    except Exception as error:
        raise Mistake(_unrendered(source, error)) from None


def _template(text: str, read: Callable[[str], str]) -> Template:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment: Environment = ImmutableSandboxedEnvironment(
        autoescape=False,  # config files are no HTML
        keep_trailing_newline=True,
        newline_sequence="\r\n" if "\r\n" in text else "\n",
        undefined=jinja2.StrictUndefined,
        loader=jinja2.FunctionLoader(lambda name: _include(name, read)),
    )
    return environment.from_string(text)


def _include(name: str, read: Callable[[str], str]) -> str | None:
    return None if name.startswith("/") or ".." in name.split("/") else read(name)


def _unrendered(source: str, error: Exception) -> str:
    return f"{_place(source, error)}: this cannot be rendered ({type(error).__name__})"


def _place(source: str, error: Exception) -> str:
    """The template and, as Jinja2 rewrites tracebacks, the line in it."""
    trace, line = error.__traceback__, None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return source if line is None else f"{source}, line {line}"
