"""The registry and discovery: no plugin takes lavie or another plugin down, and every broken one is named."""

import importlib
import importlib.metadata
import random
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from packages import HOOK, healthy, install, light

import lavie.builtin
from lavie.blocks.base import TemporalSpec
from lavie.errors import PluginError, SpecError
from lavie.plugins import Owner, Plugin, announced
from lavie.registry import Registry, installed

Install = Callable[..., None]
ENDLESS = "while True: pass\n"


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs packages into a folder on the path, from which alone plugins load; nothing stays behind."""
    distributions = importlib.metadata.distributions
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: distributions(path=[str(tmp_path)]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("LAVIE_PLUGINS")
    before = set(sys.modules)
    installed.cache_clear()
    yield partial(_install, tmp_path)
    installed.cache_clear()
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def _install(folder: Path, name: str, source: str | None, **metadata: object) -> None:
    install(folder, name, source, **metadata)  # type: ignore[arg-type]
    importlib.invalidate_caches()


def module(name: str, source: str) -> Plugin:
    """Return a plugin as if a package `name` had been imported."""
    made = ModuleType(name)
    exec(source, made.__dict__)
    return Plugin(Owner(name, "1.0", name), made)


def causes(registry: Registry) -> dict[str, str]:
    """Return why each distribution was left out or contested."""
    return {problem.owner.distribution: problem.cause for problem in registry.problems}


def core_works(registry: Registry) -> bool:
    assert set(Registry(lavie.builtin).components("temporal")) <= set(registry.components("temporal"))
    return registry.load(TemporalSpec, "attention").type == "attention"  # type: ignore[attr-defined]


def test_lavie_registers_its_own_parts_through_the_same_hook() -> None:
    registry = Registry(lavie.builtin)
    assert not registry.problems
    assert {"temporal", "denoiser", "sampler", "stage"} <= set(registry.kinds())
    assert registry.owner(registry.load(TemporalSpec, "attention")).distribution == "lavie"


def test_an_installed_plugin_is_found_and_owned(add: Install) -> None:
    add("good-one", healthy("good"), version="2.3", entry_point="good")
    registry = installed()
    assert registry.owner(registry.load(TemporalSpec, "good")) == Owner("good-one", "2.3", "good")
    assert not registry.problems


HOSTILE: dict[str, tuple[str | None, str]] = {  # source, and part of the cause
    "no-dependency": ("import surely_not_there", "cannot be imported: ModuleNotFoundError: No module named"),
    "no-syntax": ("def", "cannot be imported: SyntaxError"),
    "leaves": ("raise SystemExit(3)", "cannot be imported: SystemExit: 3"),
    "endless": (ENDLESS, "cannot be imported: TimeoutError: took more than 0.3 seconds"),
    "no-module": (None, "cannot be imported: ModuleNotFoundError: No module named 'no_module'"),
    "half": (healthy("half", "other").replace("Layer1Spec]", "missing]"), "lavie_components failed: NameError"),
    "signature": (healthy("s").replace("components()", "components(extra)"), "lavie_components failed: Plugin"),
    "misspelt": (
        healthy("m").replace("lavie_components", "lavie_componets"),
        "unknown hook 'lavie_componets'. Did you mean 'lavie_components'?",
    ),
    "unmarked": (healthy("u").replace("@hookimpl", ""), "mark lavie_components with @lavie.hookimpl"),
    "hookless": ("x = 1", "implements no hook of lavie; define one of lavie_components"),
    "nothing": (healthy("n").replace("return [Layer0Spec]", "return None"), "lavie_components returned None"),
    "instances": (healthy("i").replace("[Layer0Spec]", "[Layer0Spec()]"), "which is no component class"),
    "abstract": (healthy("a").replace("def build", "def built"), "Layer0Spec does not define build"),
    "nameless": (healthy("n").replace('"n"] = "n"', '"a b"] = "a b"'), "Layer0Spec.type must be a Literal of one name"),
    "kindless": (healthy("k").replace("(TemporalSpec)", "(Spec)"), "Layer0Spec is no component"),
    "twice": (healthy("t").replace("[Layer0Spec]", "[Layer0Spec] * 2"), "returned temporal t twice"),
    "shadows": (healthy("attention", "else"), "temporal 'attention' is lavie's own name; choose another"),
    "own-kind": (
        healthy("o").replace("(TemporalSpec)", "(Spec)").replace("    type:", "    kind = 'temporal'\n    type:"),
        "Layer0Spec is no component",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_broken_plugin_is_named_and_left_out_whole(name: str, add: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "endless":
        monkeypatch.setenv("LAVIE_PLUGINS_TIMEOUT", "0.3")
    source, cause = HOSTILE[name]
    add(name, source, version="0.7")
    if name != "endless":
        add("good-one", healthy("good"))
    registry = installed()
    (problem,) = registry.problems
    assert problem.owner == Owner(name, "0.7", name)
    assert cause in problem.cause
    assert core_works(registry)
    own = set(Registry(lavie.builtin).components("temporal"))
    assert set(registry.components("temporal")) - own == ({"good"} if name != "endless" else set())


def test_all_broken_plugins_together_do_no_more_harm_than_each_alone() -> None:
    """In any order: the same components, the same plugins named."""
    sources = {name: source for name, (source, _) in HOSTILE.items() if source and source != ENDLESS}
    loadable = [name for name in sources if name not in {"no-dependency", "no-syntax", "leaves"}]
    everyone = [module(name, sources[name]) for name in loadable]
    everyone += [
        module("good-one", healthy("good")),
        module("rival-a", healthy("x", "a")),
        module("rival-b", healthy("x")),
    ]
    everyone.append(Plugin(Owner("lavie"), lavie.builtin))
    rng = random.Random(0)
    outcomes = set()
    for _ in range(20):
        rng.shuffle(everyone)
        registry = Registry(*everyone)
        assert core_works(registry)
        outcomes.add((tuple(registry.components("temporal")), tuple(sorted(causes(registry)))))
    ((names, named),) = outcomes
    assert {"good", "a"} <= set(names)
    assert "x" not in names
    assert set(named) == {*loadable, "rival-a", "rival-b"}


def test_a_name_that_two_plugins_claim_belongs_to_neither_and_both_are_told(add: Install) -> None:
    add("one", healthy("same", "only-one"))
    add("two", healthy("same"))
    registry = installed()
    assert "only-one" in registry.components("temporal")
    with pytest.raises(
        SpecError, match=r"'same' is claimed by one 1\.0 and by two 1\.0; choose one with LAVIE_PLUGINS"
    ):
        registry.load(TemporalSpec, "same")


def test_two_packages_with_one_entry_point_are_both_named_and_one_can_be_pinned(
    add: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("one", healthy("a"), entry_point="layer")
    add("two", healthy("b"), entry_point="layer")
    assert set(causes(installed())) == {"one", "two"}
    assert all("'one' and 'two'" in cause for cause in causes(installed()).values())
    monkeypatch.setenv("LAVIE_PLUGINS", "layer@two")
    installed.cache_clear()
    assert "b" in installed().components("temporal")
    assert not installed().problems


def test_a_plugin_for_another_lavie_is_incompatible(add: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lavie.plugins.lavie_version", lambda: "0.1.0")
    add("future", healthy("f"), requires=["lavie>=99", "torch"])
    add("present", healthy("p"), requires=["lavie>=0.1", "lavie>=99; extra == 'all'", "?!"])
    (problem,) = installed().problems
    assert (problem.owner.distribution, problem.status) == ("future", "incompatible")
    assert problem.cause == "needs lavie>=99, this is lavie 0.1.0"
    assert "p" in installed().components("temporal")


@pytest.mark.parametrize("metadata", ["", "Version: 1.0\n", "\x00\x01"])
def test_a_package_without_readable_metadata_goes_by_its_folder(metadata: str, add: Install) -> None:
    add("torn", healthy("torn_layer"), metadata=metadata)
    assert installed().owner(installed().load(TemporalSpec, "torn_layer")).distribution == "torn"


def test_the_error_of_a_spec_names_the_broken_plugin_that_may_have_had_the_name(add: Install) -> None:
    add("broken", "raise RuntimeError('no such driver')")
    with pytest.raises(SpecError, match=r"unknown temporal 'x'.*Not loaded: broken 1\.0.*RuntimeError: no such driver"):
        installed().load(TemporalSpec, "x")


def test_a_broken_plugin_is_logged(add: Install, caplog: pytest.LogCaptureFixture) -> None:
    add("broken", "raise RuntimeError('no such driver')")
    installed()
    assert "plugin left out: broken 1.0 (entry point 'broken')" in caplog.text


def test_strict_makes_problems_fatal(add: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIE_PLUGINS_STRICT", "1")
    add("broken", "raise RuntimeError('no such driver')")
    with pytest.raises(PluginError, match=r"plugin broken 1\.0.*no such driver"):
        installed()


def test_an_interrupt_during_an_import_is_not_swallowed(add: Install) -> None:
    add("interrupted", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        installed()


@pytest.mark.parametrize(
    ("pin", "loaded"), [("", set()), ("one", {"a"}), (" two , one,", {"a", "b"}), ("one@One", {"a"})]
)
def test_pins_say_what_loads(pin: str, loaded: set[str], add: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    add("one", healthy("a"))
    add("two", healthy("b"))
    monkeypatch.setenv("LAVIE_PLUGINS", pin)
    assert {"a", "b"} & set(installed().components("temporal")) == loaded


def test_a_pin_of_something_not_installed_says_what_is(add: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    add("dwconv-layer", healthy("a"), entry_point="dwconv")
    monkeypatch.setenv("LAVIE_PLUGINS", "dwcnv")
    with pytest.raises(
        PluginError, match=r"'dwcnv', which is not installed. Did you mean 'dwconv'\? Installed: dwconv"
    ):
        installed()


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan"])
def test_a_time_limit_that_is_no_number_of_seconds_is_refused(
    text: str, add: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("one", healthy("a"))
    monkeypatch.setenv("LAVIE_PLUGINS_TIMEOUT", text)
    with pytest.raises(PluginError, match="LAVIE_PLUGINS_TIMEOUT must be a number of seconds above 0"):
        installed()


def test_listing_imports_nothing(add: Install) -> None:
    for index in range(50):
        add(f"plugin-{index}", "raise SystemExit")
    assert len(announced()) == 50
    assert not [name for name in sys.modules if name.startswith("plugin_")]


def test_a_hook_that_never_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAVIE_PLUGINS_TIMEOUT", "0.2")
    endless = "from lavie import hookimpl\nimport itertools" + HOOK.format(classes="x for x in itertools.repeat(1)")
    registry = Registry(lavie.builtin, module("endless", endless))
    assert "TimeoutError" in causes(registry)["endless"]
    assert core_works(registry)


def test_a_plugin_whose_spec_fails_in_an_odd_way_is_named() -> None:
    source = healthy("odd").replace(
        "    def build",
        "    def model_post_init(self, context) -> None:\n        raise LookupError('no table')\n\n    def build",
    )
    registry = Registry(lavie.builtin, module("odd-one", source))
    with pytest.raises(SpecError, match=r"temporal 'odd' of odd-one 1\.0 failed: LookupError: no table"):
        registry.load(TemporalSpec, "odd")


def test_a_kind_given_another_base_class_is_refused() -> None:
    registry = Registry(module("stranger", light("temporal", "mine")), lavie.builtin)
    assert "derives from stranger.KindSpec, not from lavie.blocks.base.TemporalSpec" in causes(registry)["stranger"]


def test_a_plugin_may_bring_a_new_kind() -> None:
    registry = Registry(lavie.builtin, module("codecs", light("codec", "gif")))
    assert not registry.problems
    assert registry.load(registry.kind("codec"), "gif").kind == "codec"


def test_an_unknown_kind_names_the_nearest() -> None:
    with pytest.raises(SpecError, match=r"unknown kind 'tempral'. Did you mean 'temporal'\? Kinds: "):
        Registry(lavie.builtin).kind("tempral")


def test_what_a_plugin_prints_stays_out_of_the_results(add: Install, capsys: pytest.CaptureFixture[str]) -> None:
    add("chatty", "print('hello')\n" + healthy("a").replace("return [", "print('hook'); return ["))
    assert "a" in installed().components("temporal")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "hello\nhook\n")


def test_the_cause_of_a_broken_plugin_is_fit_for_a_terminal(add: Install, caplog: pytest.LogCaptureFixture) -> None:
    add("broken", "raise RuntimeError('red \\x1b[31m\\nline')")
    installed()
    assert "RuntimeError: red \\x1b[31m line" in caplog.text
