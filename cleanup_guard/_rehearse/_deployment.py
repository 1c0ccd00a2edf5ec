"""What a compose file or a Kubernetes manifest says about a stop: image, command, stop signal, grace period, preStop hook."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeGuard

from cleanup_guard._ground.foreign import quoted
from cleanup_guard._rehearse._plan import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

COMPOSE_GRACE, KUBERNETES_GRACE = 10.0, 30.0
"""Seconds, where the file does not say it."""

MOST_BYTES = 4 << 20
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h)")
VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)(?:(:?[-?+])((?:[^{}]|\{[^{}]*\})*))?\})")
REFERENCE = re.compile(r"\$\$\(|\$\((\w[\w.-]*)\)")
"""A variable in a command of Kubernetes; two dollar signs for one that is none."""

PODS = {
    "Pod": ("spec",),
    "CronJob": ("spec", "jobTemplate", "spec", "template", "spec"),
    **dict.fromkeys(
        ("DaemonSet", "Deployment", "Job", "ReplicaSet", "ReplicationController", "StatefulSet"),
        ("spec", "template", "spec"),
    ),
}
"""Where a pod is described, by the kind of what has it."""


class Unreadable(Exception):
    """The file does not say what is needed; the message says which file, where, and what."""


@dataclass(frozen=True)
class Deployment:
    """How a platform runs and stops an image.

    Attributes:
        image: its name.
        grace: seconds from the stop to SIGKILL.
        entrypoint: in place of the image's own; None for that.
        command: what follows it; None for the image's own.
        signal: the stop signal; None for the image's own.
        hook: what comes before the stop signal.
        options: of `docker run`.
        ports: more of those, which publish ports.
    """

    image: str
    grace: float
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    signal: str | None = None
    hook: Hook | None = None
    options: list[str] = field(default_factory=list[str])
    ports: list[str] = field(default_factory=list[str])


def _load(path: str) -> list[Any]:
    """All documents of a YAML file.

    Raises:
        Unreadable: it is none, or there is nothing to read it with.
    """
    try:
        import yaml
    except ImportError:
        raise Unreadable("to read YAML needs PyYAML: pip install 'cleanup-guard[yaml]'") from None
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(MOST_BYTES)
        return list(yaml.safe_load_all(text))
    except OSError as error:
        raise Unreadable(f"{quoted(path)} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f", line {where.line + 1}"
        raise Unreadable(f"{quoted(path)}{line}: this is no YAML") from None


def _is_mapping(value: object) -> TypeGuard[dict[Any, Any]]:
    return isinstance(value, dict)


def _is_sequence(value: object) -> TypeGuard[list[Any]]:
    return isinstance(value, list)


class Node:
    """A part of a file, that knows where it stands for what there is to complain about.

    Args:
        where: the file and the names that lead here.
        value: what stands there.
    """

    def __init__(self, where: str, value: Any) -> None:
        self._where = where
        self.value = value

    def __bool__(self) -> bool:
        return self.value is not None

    def __getitem__(self, name: str) -> Node:
        if self.value is None:
            return Node(f"{self._where}.{name}", None)
        return Node(f"{self._where}.{name}", self._mapping.get(name))

    def wrong(self, wanted: str) -> Unreadable:
        """What stands here is not what should."""
        return Unreadable(f"{self._where}: there should be {wanted}")

    @property
    def items(self) -> list[Node]:
        """The elements of a list; of nothing none."""
        if self.value is None:
            return []
        if not _is_sequence(self.value):
            raise self.wrong("a list")
        return [Node(f"{self._where}[{at}]", each) for at, each in enumerate(self.value)]

    @property
    def names(self) -> list[str]:
        """Of what is here."""
        return [str(name) for name in self._mapping]

    @property
    def _mapping(self) -> dict[Any, Any]:
        if not _is_mapping(self.value):
            raise self.wrong("names with values")
        return self.value

    @property
    def text(self) -> str:
        """A word or a number."""
        if isinstance(self.value, bool) or not isinstance(self.value, (str, int, float)):
            raise self.wrong("a text")
        return str(self.value)

    @property
    def words(self) -> list[str] | None:
        """A command: a list of words, or one text that is split as a shell would; None if there is none."""
        if self.value is None:
            return None
        if not isinstance(self.value, str):
            return [each.text for each in self.items]
        try:
            return shlex.split(self.value)
        except ValueError:
            raise self.wrong("a command line") from None

    @property
    def number(self) -> float:
        """A number of seconds."""
        if (
            isinstance(self.value, bool)
            or not isinstance(self.value, (int, float))
            or not 0 <= self.value < float("inf")
        ):
            raise self.wrong("a number of seconds")
        return float(self.value)


# -- compose ----------------------------------------------------------------------------------------------------------


def from_compose(path: str, service: str) -> Deployment:
    """How compose runs a service.

    Raises:
        Unreadable: the file does not say it.
    """
    documents = _load(path)
    variables = {**_dotenv(os.path.join(os.path.dirname(path), ".env")), **os.environ}
    root = Node(quoted(path), _interpolated(documents[0] if documents else None, variables))
    services = root["services"]
    found = services[service]
    if not found:
        known = ", ".join(map(quoted, services.names)) if services else "none"
        raise Unreadable(f"{quoted(path)} has no service {quoted(service)}; there is: {known}")
    period = found["stop_grace_period"]
    return Deployment(
        image=_image(path, root, service, found),
        grace=_duration(period) if period else COMPOSE_GRACE,
        entrypoint=found["entrypoint"].words,
        command=found["command"].words,
        signal=found["stop_signal"].text if found["stop_signal"] else None,
        options=list(_compose_options(path, found)),
        ports=[
            word
            for port in found["ports"].items
            if not isinstance(port.value, dict)
            for word in ("--publish", port.text)
        ],
    )


def _image(path: str, root: Node, service: str, found: Node) -> str:
    if found["image"]:
        return found["image"].text
    if not found["build"]:
        raise found["image"].wrong("the name of an image")
    project = root["name"].text if root["name"] else os.path.basename(os.path.dirname(os.path.abspath(path)))
    name = re.sub(r"[^a-z0-9_-]", "", project.lower()).lstrip("_-")
    return f"{name}-{service}"  # as `docker compose build` calls it


ONE_VALUE = {
    "user": "--user", "working_dir": "--workdir", "shm_size": "--shm-size", "mem_limit": "--memory",
}  # fmt: skip
SWITCHES = {"init": "--init", "privileged": "--privileged", "read_only": "--read-only"}
MANY_VALUES = {"cap_add": "--cap-add", "cap_drop": "--cap-drop", "tmpfs": "--tmpfs"}
"""Names in a service, and options of `docker run`."""


def _compose_options(path: str, found: Node) -> Iterator[str]:
    folder = os.path.dirname(os.path.abspath(path))
    yield from (
        word for name, option in ONE_VALUE.items() if found[name] for word in (option, found[name].text)
    )
    yield from (option for name, option in SWITCHES.items() if found[name].value is True)
    for name, option in MANY_VALUES.items():
        for each in _one_or_more(found[name]):
            yield from (option, each.text)
    for each in _one_or_more(found["env_file"]):
        file = each["path"] if isinstance(each.value, dict) else each
        yield from ("--env-file", os.path.join(folder, file.text))
    for variable in _environment(found["environment"]):
        yield from ("--env", variable)
    for volume in found["volumes"].items:
        yield from _volume(folder, volume)


def _one_or_more(node: Node) -> list[Node]:
    return [node] if isinstance(node.value, str) else node.items


def _environment(node: Node) -> Iterator[str]:
    if isinstance(node.value, dict):
        for name in node.names:
            value = node[name]
            shown = (
                str(value.value).lower() if isinstance(value.value, bool) else value.text if value else None
            )
            yield name if shown is None else f"{name}={shown}"
    else:
        for each in node.items:
            yield each.text


def _volume(folder: str, node: Node) -> Iterator[str]:
    """A folder of this machine, or else one that nobody else uses: what is rehearsed must not lose anybody's data."""
    if isinstance(node.value, dict):
        source = node["source"].text if node["source"] and node["type"].value == "bind" else ""
        target = node["target"].text
    else:
        source, _, target = node.text.rpartition(":") if ":" in node.text else ("", "", node.text)
        if target in {"ro", "rw", "z", "Z"}:
            source, _, target = source.rpartition(":")
    if source.startswith((".", "/", "~")):
        yield from ("--volume", f"{os.path.join(folder, os.path.expanduser(source))}:{target}")
    else:
        yield from ("--volume", target)


def _duration(node: Node) -> float:
    text = node.text
    parts = DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text.strip() or not parts:
        raise node.wrong("a duration such as 1m30s")
    return sum(float(number) * UNITS[unit] for number, unit in parts)


def _dotenv(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read(MOST_BYTES).splitlines()]
    except OSError:
        return {}
    pairs = (
        line.removeprefix("export ").partition("=")
        for line in lines
        if "=" in line and not line.startswith("#")
    )
    return {name.strip(): value.strip().strip("'\"") for name, _, value in pairs}


def _interpolated(value: Any, variables: Mapping[str, str], depth: int = 0) -> Any:
    if depth > 50:  # noqa: PLR2004 - nothing that is meant is nested so deeply
        raise Unreadable("a file that is nested so deeply is no compose file")
    if isinstance(value, str):
        return VARIABLE.sub(lambda found: _variable(found, variables), value)
    if _is_sequence(value):
        return [_interpolated(each, variables, depth + 1) for each in value]
    if _is_mapping(value):
        return {name: _interpolated(each, variables, depth + 1) for name, each in value.items()}
    return value


def _variable(found: re.Match[str], variables: Mapping[str, str]) -> str:
    dollar, plain, name, operator, other = found.groups()
    if dollar:
        return "$"
    name = plain or name
    value = variables.get(name)
    operator = operator or ""
    if value is None or (operator.startswith(":") and not value):
        return _in_place_of(name, operator, other)
    return other if operator.endswith("+") else value


def _in_place_of(name: str, operator: str, other: str) -> str:
    """What stands for a variable that is missing."""
    if operator.endswith("?"):
        raise Unreadable(f"the variable {name} is not set, and the file wants it to be")
    return other if operator and not operator.endswith("+") else ""


# -- kubernetes -------------------------------------------------------------------------------------------------------


def from_kubernetes(path: str, container: str | None) -> Deployment:
    """How Kubernetes runs a container.

    Args:
        path: of a manifest: a pod, or what makes pods; the first one counts.
        container: the container's name; None for the first.

    Raises:
        Unreadable: the file does not say it.
    """
    pod = next(filter(None, (_pod(node) for node in _resources(path))), None)
    if pod is None:
        raise Unreadable(f"{quoted(path)} describes no pod: there should be one of {', '.join(PODS)}")
    found = _container(path, pod, container)
    variables = {each["name"].text: each["value"].text for each in found["env"].items if each["value"]}
    period = pod["terminationGracePeriodSeconds"]
    lifecycle = found["lifecycle"]
    return Deployment(
        image=found["image"].text,
        grace=period.number if period else KUBERNETES_GRACE,
        entrypoint=_expanded(found["command"], variables),
        command=_expanded(found["args"], variables),
        signal=lifecycle["stopSignal"].text if lifecycle["stopSignal"] else None,
        hook=_hook(lifecycle["preStop"]),
        options=list(_kubernetes_options(pod, found, variables)),
        ports=[
            word
            for port in found["ports"].items
            for word in ("--publish", f"{port['containerPort'].text}:{port['containerPort'].text}")
        ],
    )


def _container(path: str, pod: Node, name: str | None) -> Node:
    some = pod["containers"].items
    found = next((each for each in some if name is None or each["name"].value == name), None)
    if found is None:
        names = ", ".join(quoted(each["name"].text) for each in some)
        raise Unreadable(f"{quoted(path)} has no container {quoted(name or '')}; there is: {names or 'none'}")
    return found


def _resources(path: str) -> Iterator[Node]:
    for document in _load(path):
        node = Node(quoted(path), document)
        if isinstance(document, dict):
            yield from node["items"].items if node["kind"].value == "List" else [node]


def _pod(node: Node) -> Node | None:
    way = PODS.get(str(node["kind"].value))
    if way is None:
        return None
    for name in way:
        node = node[name]
    return node or None


def _expanded(node: Node, variables: Mapping[str, str]) -> list[str] | None:
    replace: Callable[[re.Match[str]], str] = lambda found: (  # noqa: E731 - typed
        "$(" if found[0] == "$$(" else variables.get(found[1], found[0])
    )
    return [REFERENCE.sub(replace, each.text) for each in node.items] if node else None


def _hook(node: Node) -> Hook | None:
    if node["exec"]:
        return Hook([each.text for each in node["exec"]["command"].items])
    if node["sleep"]:
        return Hook([], node["sleep"]["seconds"].number)
    if node:
        raise node.wrong("exec or sleep: what else a hook may do cannot be rehearsed here")
    return None


def _kubernetes_options(pod: Node, found: Node, variables: Mapping[str, str]) -> Iterator[str]:
    for name, value in variables.items():
        yield from ("--env", f"{name}={value}")
    if found["workingDir"]:
        yield from ("--workdir", found["workingDir"].text)
    user = found["securityContext"]["runAsUser"] or pod["securityContext"]["runAsUser"]
    group = found["securityContext"]["runAsGroup"] or pod["securityContext"]["runAsGroup"]
    if user:
        yield from ("--user", f"{user.text}:{group.text}" if group else user.text)
    limit = found["resources"]["limits"]["memory"]
    if limit and re.fullmatch(r"\d+[KMG]i?", limit.text):
        yield from ("--memory", limit.text.rstrip("i").lower())
