"""Package metadata. Each dependency carries the reason why it was chosen."""

from pathlib import Path

from setuptools import find_packages, setup

REQUIRES = [
    "torch>=2.6",  # supernet, training, export
    "numpy>=1.26",  # arrays; 1.26 as well as 2.x
    # rliable (inter-quartile means) pins arch==5.3, which has no wheel for Python 3.11: its figures are made with scipy here
    "scipy>=1.11",  # constrained discretisation (exact integer program), rank statistics, bootstrap intervals
    "scikit-learn>=1.4",  # Gaussian process of the search over morphisms; oracle of the tests of the regression
    "gymnasium>=1.0",  # the environment standard of the field
    'procgen-mirror==0.10.7; python_version < "3.13" and platform_system == "Linux"',  # Procgen for Python 3.11 and 3.12
    "onnx>=1.16",  # exchange format of the agent, checker
    "onnxruntime>=1.20",  # runtime that is measured and deployed by default
    "pydantic>=2.7",  # typed, frozen configuration that reports all faults at once
    "typer>=0.29",  # typed command line with help from signatures
    "rich>=13",  # progress bar and tables in the terminal
    "filelock>=3.12",  # one writer for a run folder, on every platform
    "safetensors>=0.4",  # teacher weights: no pickle, no code execution
    "tensorboard>=2.15",  # event files beside metrics.jsonl
    "matplotlib>=3.8",  # plots of the report
    "pillow>=10",  # the clip of the agent playing; matplotlib needs it, too
    "jinja2>=3.1",  # template of the report
    "networkx>=3.1",  # levels of a network with branches, for its drawing; torch needs it, too
]
EXTRAS = {
    "minatar": ["minatar>=1.0.15"],  # GPL-3.0: never a hard dependency
    "atari": ["ale-py>=0.11"],
    "box2d": ["Box2D==2.3.10", "pygame>=2.5"],  # LunarLander; gymnasium[box2d] would need a compiler
    "tvm": ["apache-tvm==0.27.0.post1", "apache-tvm-ffi==0.1.14.post1", "tornado", "psutil", "cloudpickle"],  # a pair that works
    "ray": ["ray>=2.52"],  # many machines: it places, retries and carries the work; tokens since 2.52
    "query": [
        "duckdb>=1.2"
    ],  # SQL over run folders in one wheel without a server; sqlite3 has neither lists nor a way to shut files off
    "bench": [
        "stable-baselines3>=2.3",
        "simpy>=4.1",  # discrete-event simulation of a fleet: the field's own, pure Python
    ],
    "test": [
        "pytest>=8",
        "pytest-timeout>=2.3",  # a test that hangs fails
        "pytest-xdist>=3.6",  # tests side by side, one worker more than there are cores
        "hypothesis>=6.100",
        "minatar>=1.0.15",
        "qiskit>=2.0",  # the simulator that quantum circuits are checked with; wheels that need no compiler, numpy 1.26 to 2.x
        "stable-baselines3>=2.3",  # the reference that losses are compared with, and whose policies become teachers
        "duckdb>=1.2",  # the queries of the extra of that name
        "mujoco>=3.1",  # the tasks of gymnasium that are replayed exactly
    ],
    # Sphinx with furo: reads the roles that the docstrings already have, and its pages ask nothing of any other host
    "docs": ["sphinx>=8", "furo>=2024.8", "myst-parser>=4"],
    # guided by coverage, with libFuzzer inside; by Google; a wheel for Linux that needs no compiler
    "fuzz": ["atheris>=3.0,<4"],
    "check": [  # upper bounds: a new rule must not fail a change that has nothing to do with it
        "ruff>=0.17,<0.18",  # lint and format in one quick tool
        "mypy>=2.4,<2.5",  # the reference type checker
        "scipy-stubs>=1.15",  # types of scipy, which carries none
        "types-networkx>=3.1",  # types of networkx, which carries none
        "pre-commit>=4,<5",  # the same gates before each commit
        "pytest-cov>=6,<8",  # coverage by branches
        "mutmut>=3.8,<3.9",  # changes the code in small ways: do the tests notice?
    ],
}
TYPED = ["py.typed"]  # tells type checkers that the annotations are part of the package

setup(
    name="cosearch",
    version="0.1.0",
    description="Search the deep-RL agent for a device: measured latency tables, distillation, export, report",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["cosearch*", "latency_tables*", "accel_models*"]),
    package_data={
        "latency_tables": [*TYPED, "**/*.jsonl", "**/*.json", "**/*.md"],
        "accel_models": [*TYPED, "**/*.json", "**/*.md", "**/*.csv", "**/*.yaml", "**/*.cfg"],
        "cosearch": [
            *TYPED,
            "**/*.json",
            "**/*.png",
            "**/*.safetensors",
            "**/*.html",
            "**/*.md",
            "**/files/*",
            "bench/data/*.jsonl",
        ],
    },
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["cosearch=cosearch.cli.app:program"]},
)
