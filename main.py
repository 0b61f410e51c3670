"""The command line: load configs, then train and test each."""

import argparse
import io
import os
import select
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from utils.errors import UserError
from utils.parser import OneLineParser
from utils.stop_signals import SIGNALS, Stopped

if TYPE_CHECKING:
    from engine.config import RunConfig

DESCRIPTION = """\
Learn binary codes for image retrieval from long-tailed data.

A config file names the data, the networks, the losses and the schedule. A run trains it, tests
the best checkpoint on the queries, and leaves everything in the config's log_dir: metrics.json,
codes.npz, log.txt, checkpoints and TensorBoard events (tensorboard --logdir logs).
"""
EXAMPLES = """\
examples:
  python main.py --config config/Digits_LT/stage_1.py
  python main.py --config config/Cifar100_LT/stage_1.py \\
      config/Cifar100_LT/stage_2_meta_embedding.py
  python main.py --config config/Cifar100_LT/stage_1.py \\
      --opts training_opt.data_root=/data training_opt.imbalance_factor=50
  python main.py --config config/Cifar100_LT/stage_1.py --test --checkpoint my_checkpoint.pth
  torchrun --nproc_per_node=2 main.py --config config/Cifar100_LT/stage_1.py

A run takes all GPUs of the machine, one process each; CUDA_VISIBLE_DEVICES or
training_opt.device=cpu say otherwise.
Data is looked for under training_opt.data_root, else $LTH_DATA_ROOT, else ./data.
A run saves its state at least once a minute. Ctrl-C or SIGTERM let it finish the step and save;
once more stops it at once. --resume goes on; of several configs it skips the finished ones.
Exit status: 0 done; 2 a mistake in command, config or data, or no disk or memory (one line says
which); 130 interrupted, 143 terminated, --resume goes on; 141 nobody read the
output; 1 otherwise.
"""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 on wrong usage."""
    parser = OneLineParser(
        prog="python main.py",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config",
        required=True,
        nargs="+",
        metavar="FILE",
        help="config file, see config/; several run one after another",
    )
    parser.add_argument(
        "--opts",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="override config values; VALUE is YAML, e.g. training_opt.code_length=32 "
        "networks.feat_model.params.arch=resnet34",
    )
    what = parser.add_argument_group("what to do (default: train, then test the best checkpoint)")
    modes = what.add_mutually_exclusive_group()
    modes.add_argument("--test", action="store_true", help="test only, without training")
    modes.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    modes.add_argument(
        "--check_data",
        action="store_true",
        help="print counts, unreadable files and overlaps; no training",
    )
    modes.add_argument(
        "--smoke",
        action="store_true",
        help="two steps of everything on made-up images; needs no data or weights",
    )
    modes.add_argument(
        "--profile",
        action="store_true",
        help="trace ten training steps and print where their time goes",
    )
    modes.add_argument(
        "--test_open",
        action="store_true",
        help="test only, and with open-set queries too: images of classes never trained on",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="FILE|FOLDER",
        help="what --test loads: a checkpoint, another project's weights, or a published folder "
        "(default: the run's own best; see docs/model_zoo.md)",
    )
    parser.add_argument("--record", metavar="CSV", help="add the final figures as a row to CSV")
    return parser.parse_args(arguments)


def run(arguments: argparse.Namespace) -> int:
    """Do what the command line asks for; returns the exit status.

    Raises:
        UserError: for any mistake of the user's.
    """
    from engine import launch
    from engine.build import check_config_parts
    from engine.config import load_config

    _check_arguments(arguments)
    configs = [load_config(path, arguments.opts) for path in arguments.config]
    for config in configs:  # all of them before the first is run
        check_config_parts(config)
    folders = {Path(config.training_opt.log_dir).resolve() for config in configs}
    if len(folders) < len(configs):
        raise UserError(f"several configs have one log_dir ({min(folders)}); run them apart")
    if arguments.resume and len(configs) > 1:
        configs = unfinished(configs, arguments.record)
    if _needs_one_process(arguments):
        found = [inspect(arguments, config) for config in configs]
        return 0 if all(found) else 2
    counts = {launch.processes_to_start(config) for config in configs}
    # Together where they can be: processes start, and kernels are chosen, once.
    paths = [config.path for config in configs]
    groups = [paths] if len(counts) == 1 else [[path] for path in paths]
    for group, config in zip(groups, configs, strict=False):
        count = launch.processes_to_start(config)
        if count > 1:
            launch.run_processes(count, train_or_test, arguments, group)
        else:
            train_or_test(arguments, group)
    return 0


def unfinished(configs: list["RunConfig"], record: str | None) -> list["RunConfig"]:
    """Those of several configs whose runs are not finished; says which are, and records them."""
    from engine.experiment import is_finished, record_finished

    found = []
    for config in configs:
        if is_finished(config):
            print(f"{config.path} is finished: {config.training_opt.log_dir}", file=sys.stderr)
            if record:
                record_finished(config, record)
        else:
            found.append(config)
    return found


def inspect(arguments: argparse.Namespace, config: "RunConfig") -> bool:
    """Check the data, run a smoke test or a profile; returns whether all is well."""
    from engine import experiment
    from engine.failures import told_in_a_line
    from utils.log import start_logging

    start_logging()
    with told_in_a_line(config):
        if arguments.check_data:
            return experiment.check_data(config)
        if arguments.smoke:
            experiment.smoke(config)
        else:
            experiment.profile(config)
    return True


def train_or_test(arguments: argparse.Namespace, paths: list[str]) -> None:
    """What each process of a run does with config files, one after another."""
    from engine import experiment
    from engine.config import load_config
    from engine.failures import told_in_a_line
    from engine.model import choose_device
    from utils.distributed import joined, started_world_size
    from utils.log import start_logging

    configs = [load_config(path, arguments.opts) for path in paths]
    if started_world_size() > 1 and any(config.engine == "shallow" for config in configs):
        raise UserError("a shallow method uses one process: run python main.py")
    with joined(choose_device(configs[0].training_opt)):
        start_logging()
        for config in configs:
            with told_in_a_line(config):
                if arguments.test or arguments.test_open:
                    experiment.test_only(
                        config,
                        checkpoint=arguments.checkpoint,
                        open_set=arguments.test_open,
                        record=arguments.record,
                    )
                    continue
                several = len(arguments.config) > 1  # of which the later ones may not have begun
                resume = arguments.resume and (not several or experiment.can_resume(config))
                experiment.train_and_test(config, resume=resume, record=arguments.record)


def _needs_one_process(arguments: argparse.Namespace) -> bool:
    return arguments.check_data or arguments.smoke or arguments.profile


def _check_arguments(arguments: argparse.Namespace) -> None:
    if arguments.checkpoint and not (arguments.test or arguments.test_open):
        raise UserError(
            "--checkpoint is what --test loads; to train from weights, "
            "set networks.NAME.weights with --opts"
        )
    if arguments.checkpoint and len(arguments.config) > 1:
        raise UserError("--checkpoint is of one config; test them one at a time")
    if arguments.record and _needs_one_process(arguments):
        raise UserError("--record needs final figures; --check_data, --smoke, --profile have none")
    if _needs_one_process(arguments) and os.environ.get("WORLD_SIZE", "1") != "1":
        raise UserError("--check_data, --smoke, --profile are for one process: run python main.py")


def open_streams() -> None:
    """Open standard streams that were closed, or the run's files would take their numbers."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def _unread() -> bool:
    """Whether nobody reads stdout any more, as of `| head`; it then goes nowhere."""
    poll = select.poll()
    poll.register(1)
    unread = any(event & select.POLLERR for _, event in poll.poll(0))
    if unread:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return unread


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; a user's mistake is one line on stderr and status 2."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    open_streams()
    for stream in (sys.stdout, sys.stderr):  # names of classes and files may not be ASCII
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with SIGNALS.handled():
            status = run(parse_arguments(arguments))
        sys.stdout.flush()
        return status
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 2
    except Stopped as stop:
        print(f"stopped by {stop}; --resume goes on from what is saved", file=sys.stderr)
        status = stop.status
    except BrokenPipeError:
        if not _unread():
            raise
        status = 128 + signal.SIGPIPE
    except Exception:
        if not several:
            raise
        traceback.print_exc()
        status = 1
    if several:  # an orderly exit would wait for the other processes
        sys.stdout.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
