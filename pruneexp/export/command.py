"""`prune-export`: the command line that makes a smaller model of a finished run."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

CHANNELS = ("unconstrained", "unordered", "constrained")

EPILOG = """\
The export's folder holds model.safetensors, structure.json and config.yaml; pruneexp.load(FOLDER) gives the model.
Exit codes: 0 done, 2 bad input or nothing to remove, 1 a failure.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Exports one run and prints what came out. arguments: in place of the command line's."""
    options = _parser().parse_args(arguments)
    from rich.console import Console

    from pruneexp.display import setup_logging
    from pruneexp.export.steps import ExportFailure, Timing, export
    from pruneexp.export.table import print_record

    setup_logging(visible=True)
    try:
        record = export(
            options.run,
            options.output or options.run / "export",
            formats=[name for name in ("onnx", "torch_export", "compressed") if getattr(options, name)],
            timing=Timing(options.batch_sizes, options.runs, options.compile, options.semi_structured),
            device=options.device,
            multiple_of=options.multiple_of,
            channels=options.channels,
            trust=options.trust,
        )
    except ExportFailure as failure:
        _exit(1, str(failure))
    except (ValueError, ImportError) as error:
        _exit(2, str(error))
    except OSError as error:
        _exit(1, f"{error.strerror or error}: {error.filename or 'while writing'}")
    print_record(record, Console(highlight=False))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="prune-export",
        description="Make the model of a finished run smaller, prove that it computes the same, and measure it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run of prune-run")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where to write, RUN/export by default")
    parser.add_argument("--onnx", action="store_true", help="also model.onnx, checked with onnxruntime")
    parser.add_argument("--torch-export", action="store_true", help="also model.pt2, a program of torch.export")
    parser.add_argument("--compressed", action="store_true", help="also packed.safetensors, zeros as single bits")
    parser.add_argument("--compile", action="store_true", help="also time both models under torch.compile")
    parser.add_argument(
        "--semi-structured", action="store_true", help="also time 2:4 sparse linear layers in torch's format, on a GPU"
    )
    parser.add_argument("--batch-sizes", type=_sizes, default=[1, 32], metavar="N,N", help="to time, 1,32 by default")
    parser.add_argument("--runs", type=int, default=30, metavar="N", help="timed calls of each, 30 by default")
    parser.add_argument(
        "--multiple-of",
        type=int,
        default=1,
        metavar="N",
        help="keep a multiple of N channels in every layer, and of hidden dimensions (1)",
    )
    parser.add_argument(
        "--channels",
        choices=CHANNELS,
        help="each layer reads only the channels that it kept itself (UPSCALE): re-ordered so that most are slices "
        "(unconstrained), copied (unordered), or only channels gone that nobody reads (constrained)",
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="CLASS",
        help="a class outside pruneexp that the run's config.yaml may build, or remote_code for Python files that came "
        "with its model; both run with your rights",
    )
    parser.add_argument("--device", default="auto", help="to test and time on: auto (default), cpu or cuda")
    return parser


def _sizes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: want whole numbers, as 1,32") from None


def _exit(code: int, message: str) -> None:
    print(f"prune-export: {' '.join(message.split())}", file=sys.stderr)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
