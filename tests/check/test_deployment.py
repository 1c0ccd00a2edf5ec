"""What is read from compose files and manifests, and what is said about those that do not say it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cleanup_guard._rehearse import _deployment
from cleanup_guard._rehearse._deployment import Unreadable, from_compose, from_kubernetes

COMPOSE = """\
name: shop
x-common: &common
  stop_grace_period: 1m30s
services:
  web:
    <<: *common
    image: "nginx:${TAG:-1.27}"
    entrypoint: [/entry.sh]
    command: serve --port 80 'a b'
    stop_signal: SIGQUIT
    init: true
    user: 1000:1000
    working_dir: /app
    environment: {A: 1, B: true, C: "$$x ${TAG-no}", D: }
    env_file: web.env
    cap_add: [SYS_PTRACE]
    tmpfs: /run
    volumes: ["./conf:/etc/conf:ro", "data:/data", "/cache", {type: bind, source: ./b, target: /b}]
    ports: ["8080:80"]
  worker:
    build: .
    environment: [A=1, HOME]
  broken:
    image: x
    stop_grace_period: soon
  needs:
    image: "${MISSING:?say which}"
"""


@pytest.fixture
def compose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A compose file."""
    monkeypatch.delenv("TAG", raising=False)
    path = tmp_path / "compose.yml"
    path.write_text(COMPOSE.partition("  needs:")[0])
    return path


def test_a_service_of_compose(compose: Path) -> None:
    """Image, command, stop signal, grace period, and what the container needs to be as it is."""
    found = from_compose(str(compose), "web")
    assert (found.image, found.grace, found.signal) == ("nginx:1.27", 90.0, "SIGQUIT")
    assert (found.entrypoint, found.command) == (["/entry.sh"], ["serve", "--port", "80", "a b"])
    folder = compose.parent
    assert found.options == [
        *("--user", "1000:1000", "--workdir", "/app", "--init", "--cap-add", "SYS_PTRACE", "--tmpfs", "/run"),
        *(
            "--env-file",
            f"{folder}/web.env",
            "--env",
            "A=1",
            "--env",
            "B=true",
            "--env",
            "C=$x no",
            "--env",
            "D",
        ),
        *("--volume", f"{folder}/./conf:/etc/conf", "--volume", "/data", "--volume", "/cache"),
        *("--volume", f"{folder}/./b:/b"),
    ]
    assert found.ports == ["--publish", "8080:80"]


def test_what_compose_does_by_default(compose: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds, the image's own signal and command; an image that it builds has a name of its own."""
    found = from_compose(str(compose), "worker")
    assert (found.image, found.grace, found.signal, found.entrypoint, found.command) == (
        *("shop-worker", 10.0),
        *(None, None, None),
    )
    assert found.options == ["--env", "A=1", "--env", "HOME"]
    (compose.parent / ".env").write_text("# a comment\nTAG='1.28'\n")
    assert from_compose(str(compose), "web").image == "nginx:1.28"
    monkeypatch.setenv("TAG", "1.29")
    assert from_compose(str(compose), "web").image == "nginx:1.29"


def test_what_compose_files_lack(compose: Path, tmp_path: Path) -> None:
    """The file, the place, and what should be there, in one sentence."""
    for service, sentence in (
        ("db", "has no service 'db'; there is: 'web', 'worker', 'broken'"),
        ("broken", "services.broken.stop_grace_period: there should be a duration such as 1m30s"),
    ):
        with pytest.raises(Unreadable, match=sentence):
            from_compose(str(compose), service)
    for text, sentence in (
        ("services: [a]", "services: there should be names with values"),
        ("services: {web: {}}", r"services.web.image: there should be the name of an image"),
        ("services: {web: {image: [a]}}", r"services.web.image: there should be a text"),
        ("services: {web: {image: '${X_MISSING:?no}'}}", "the variable X_MISSING is not set"),
        ("a: [", "line 1: this is no YAML"),
        ("a: \x01", "this is no YAML"),
        ("", "has no service 'web'; there is: none"),
    ):
        compose.write_text(text)
        with pytest.raises(Unreadable, match=sentence):
            from_compose(str(compose), "web")
    with pytest.raises(Unreadable, match="cannot be read: No such file or directory"):
        from_compose(str(tmp_path / "none"), "web")


MANIFEST = """\
apiVersion: v1
kind: Service
spec: {ports: []}
---
apiVersion: apps/v1
kind: Deployment
spec:
  template:
    spec:
      terminationGracePeriodSeconds: 45
      containers:
      - name: web
        image: shop/web:1
        command: [/app, "$(MODE)", "$(OTHER)", "$$(MODE)"]
        args: [--x]
        env: [{name: MODE, value: fast}, {name: SECRET, valueFrom: {secretKeyRef: {name: a, key: b}}}]
        workingDir: /srv
        securityContext: {runAsUser: 1000}
        resources: {limits: {memory: 64Mi}}
        ports: [{containerPort: 80}]
        lifecycle: {stopSignal: SIGUSR1, preStop: {exec: {command: [sleep, "5"]}}}
      - name: side
        image: shop/side:1
        lifecycle: {preStop: {sleep: {seconds: 3}}}
      - name: bad
        image: shop/bad:1
        lifecycle: {preStop: {httpGet: {port: 80}}}
"""


EXAMPLES = Path(__file__).parents[2] / "examples" / "deploy"


def test_the_examples_of_deployments() -> None:
    """What the page about deploying shows is what `check` reads: seconds, signal, hook, and what the guard is told."""
    app = from_compose(str(EXAMPLES / "compose.yaml"), "app")
    assert (app.grace, app.entrypoint, app.signal) == (30.0, ["python", "/app/main.py"], None)
    db = from_compose(str(EXAMPLES / "compose.yaml"), "db")
    assert (db.grace, db.signal) == (60.0, "SIGINT")
    pod = from_kubernetes(str(EXAMPLES / "kubernetes.yaml"), None)
    assert pod.hook is not None
    assert (pod.grace, pod.hook.seconds, pod.entrypoint) == (45.0, 5, ["python", "/app/main.py"])
    assert "CLEANUP_GUARD_GRACE=40" in pod.options


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """A manifest."""
    path = tmp_path / "deploy.yaml"
    path.write_text(MANIFEST)
    return path


def test_a_container_of_kubernetes(manifest: Path) -> None:
    """Command, signal, grace period, hook, and what the container needs to be as it is."""
    found = from_kubernetes(str(manifest), None)
    assert (found.image, found.grace, found.signal) == ("shop/web:1", 45.0, "SIGUSR1")
    assert (found.entrypoint, found.command) == (["/app", "fast", "$(OTHER)", "$(MODE)"], ["--x"])
    assert found.hook is not None
    assert (found.hook.command, found.hook.seconds) == (["sleep", "5"], 0)
    options = ["--env", "MODE=fast", "--workdir", "/srv", "--user", "1000", "--memory", "64m"]
    assert (found.options, found.ports) == (options, ["--publish", "80:80"])
    side = from_kubernetes(str(manifest), "side")
    assert side.hook is not None
    assert (side.image, side.hook.command, side.hook.seconds) == ("shop/side:1", [], 3)


@pytest.mark.parametrize("kind", sorted(_deployment.PODS))
def test_whatever_makes_pods(kind: str, tmp_path: Path) -> None:
    """A pod, or what makes one; also in a list. Thirty seconds, where nothing is said."""
    text = "{containers: [{name: a, image: b}]}"
    for name in reversed(_deployment.PODS[kind]):
        text = f"{{{name}: {text}}}"
    path = tmp_path / "it.yaml"
    path.write_text(f"kind: List\nitems: [{{kind: {kind}, {text[1:-1]}}}]\n")
    found = from_kubernetes(str(path), None)
    assert (found.image, found.grace, found.hook, found.command) == ("b", 30.0, None, None)


def test_what_manifests_lack(manifest: Path) -> None:
    """One sentence each."""
    with pytest.raises(Unreadable, match="has no container 'x'; there is: 'web', 'side', 'bad'"):
        from_kubernetes(str(manifest), "x")
    with pytest.raises(Unreadable, match="preStop: there should be exec or sleep"):
        from_kubernetes(str(manifest), "bad")
    manifest.write_text("kind: Service\n")
    with pytest.raises(Unreadable, match="describes no pod: there should be one of Pod, CronJob"):
        from_kubernetes(str(manifest), None)


KNOWN = """\
kind spec template containers name image lifecycle preStop exec command env services web volumes environment stop_grace_period
items env_file ports securityContext build tmpfs
"""
NAMES = st.sampled_from(KNOWN.split())
values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(values)
def test_whatever_the_file_says(value: object) -> None:
    """It is understood, or a sentence says why not."""
    document = {"kind": "Pod", "spec": {"containers": [value]}, "services": {"web": value}}
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_deployment, "_load", lambda path: [document])
        for read, name in ((from_compose, "web"), (from_kubernetes, None)):
            try:
                read("x", name)  # type: ignore[arg-type]
            except Unreadable as error:
                said.append(str(error))
    assert not [sentence for sentence in said if "\n" in sentence]
