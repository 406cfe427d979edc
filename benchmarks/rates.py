"""The learning-rate rule: its exponents, and what it loses where it was not fitted.

`python -m benchmarks.rates fit` trains the dense design in cells that change one factor each, at
several multiples of the rule's rates, with several seeds, and fits a parabola in the logarithm of
the rate to each cell, all of one curvature; the exponents follow from where the cells' least
losses lie. `python -m benchmarks.rates held` does the same in cells that the fit did not see, with
other seeds, and its rows are what the rule loses against the best of the multiples.
`--records FILE` keeps a line a training, and a second call trains only what is not there.
`--study FILE` names the corpus: the demo's by default. `python -m benchmarks.rates draw --records
FILE --held FILE --picture FILE` draws the records of both.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import stdev

from benchmarks.preset_comparison import Comparison
from benchmarks.rates_fit import Point, fit, means, regret, regrets
from benchmarks.recipe import DEMO, MOST_SHIFT, UNIT
from benchmarks.report import Row, at_most, parser, publish
from nas.config import StudyConfig
from search_space.backbone import Backbone
from search_space.contract import TRAINING, EvalRequest, Recipe
from search_space.cost import model_cost
from search_space.errors import InputError, require
from search_space.matching import Equal, MatchedPreset
from search_space.places import corpora_dir
from search_space.presets import PRESETS
from search_space.rates import BASE, Rates, Shape
from search_space.spec import FFNSpec
from workers.corpus import prepare
from workers.evaluate import evaluate

# The rates that the fit's multiples are of: a rule of before. The present one follows from the fit,
# and would move what it is fitted on.
TRIED, TRIED_EXPONENTS = Rates(matrix_lr=0.0210, lr=0.0300), Shape(-0.65, -0.1, -0.4, 0.55)
MULTIPLES = (0.5, 0.71, 1.0, 1.41, 2.0)
# Seeds that chose a constant do not judge it: the fit's choose the rule's, the second three those
# of methods (`rate_factor`), whose cells the last judge.
SEEDS, OTHER_SEEDS, LAST_SEEDS = (0, 1, 2), (3, 4, 5), (6, 7, 8)
HELD_RECORDS = Path(__file__).parent / "records" / "held.jsonl"
# Later forms of trainings than this differ in the rates of the rule alone, which a record names.
SINCE = 5
MOST_REGRET = 0.003  # bits per byte
SMALL_FLOPS = 4e11
TABLE = Comparison()


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A proxy, a design, a length.

    tokens: of the run; 0 where `flops` says how long it is.
    flops: the run's model FLOPs; 0 where `tokens` does.
    match: the cost of the dense FFN that the design has; None for its published widths.
    eval_tokens: of the validation split, that it is measured on.
    """

    name: str
    preset: str = "dense"
    d_model: int = 64
    n_layers: int = 2
    batch_size: int = 8
    tokens: float = 0
    flops: float = 0
    match: Equal | None = None
    eval_tokens: int = 2**16

    @property
    def backbone(self) -> Backbone:
        """Heads 16 wide, the reference FFN four times the model's width."""
        return Backbone(
            d_model=self.d_model,
            n_layers=self.n_layers,
            n_heads=4,
            vocab_size=1024,
            seq_len=128,
            reference_d_ff=4 * self.d_model,
        )

    @property
    def length(self) -> tuple[float, float]:
        """Tokens and model FLOPs of the run."""
        price = model_cost(self.spec, self.backbone).training_flops
        return (
            (self.tokens, self.tokens * price) if self.tokens else (self.flops / price, self.flops)
        )

    @property
    def shape(self) -> Shape:
        """What the rule is asked with."""
        return Shape(self.d_model, self.n_layers, self.length[0], self.batch_size * 128)

    @property
    def spec(self) -> FFNSpec:
        """The design."""
        if self.match:
            return MatchedPreset(self.preset, self.match).spec(self.backbone)
        return PRESETS[self.preset](self.backbone)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those that have chosen nothing of the cell's rates; of the fit, its own."""
        if self in FITTED:
            return SEEDS
        return OTHER_SEEDS if self.spec.selection.rate_factor == 1 else LAST_SEEDS

    def rates(self, multiple: float) -> Rates:
        """The rates at a multiple: of those tried for a cell of the fit, else of the rule's."""
        if self in FITTED:
            ratios = zip(self.shape, BASE, TRIED_EXPONENTS, strict=True)
            factor = math.prod((own / base) ** power for own, base, power in ratios)
            base = Rates(*(factor * rate for rate in TRIED))
        else:
            recipe = Recipe(batch_size=self.batch_size)
            base = recipe.ruled(self.spec, self.backbone, self.length[1])
        return Rates(*(multiple * rate for rate in base))


FITTED = (
    Cell(name="base", tokens=BASE.tokens),
    Cell(name="longer", tokens=3 * BASE.tokens),
    Cell(name="wider", tokens=BASE.tokens, d_model=128),
    Cell(name="deeper", tokens=BASE.tokens, n_layers=4),
    Cell(name="more tokens a step", tokens=BASE.tokens, batch_size=16),
    Cell(name="fewer tokens a step", tokens=BASE.tokens, batch_size=4),
)
HELD = (
    *(Cell(name=f"{name}, d 64", preset=name, flops=SMALL_FLOPS, batch_size=4) for name in PRESETS),
    Cell(name="dense, d 192", d_model=192, n_layers=4, tokens=1.01e6, eval_tokens=2**18),
    # Just the trainings of `benchmarks.presets`: what its tables say hangs on these rates.
    *(
        Cell(
            name=f"{name} at dense's FLOPs, d 128",
            preset=name,
            d_model=TABLE.backbone.d_model,
            n_layers=TABLE.backbone.n_layers,
            flops=TABLE.flops,
            match=TABLE.match,
            eval_tokens=TABLE.eval_tokens,
        )
        for name in PRESETS
    ),
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all trainings share; `device` decides no more than their last digits."""

    corpus_dir: str
    device: str = "cpu"


def train(cell: Cell, multiple: float, seed: int, setting: Setting) -> Point:
    """One training at a multiple of the cell's rates."""
    matrix_lr, lr = cell.rates(multiple)
    request = EvalRequest(
        evaluation=0,
        spec=cell.spec,
        backbone=cell.backbone,
        recipe=Recipe(batch_size=cell.batch_size, lr=lr, matrix_lr=matrix_lr, precision="float32"),
        corpus_dir=setting.corpus_dir,
        until_flops=cell.length[1],
        seed=seed,
        eval_tokens=cell.eval_tokens,
        device=setting.device,
    )
    result = evaluate(request, lambda progress: None)
    text = Path(setting.corpus_dir).name
    return Point(
        cell.name, multiple, matrix_lr, seed, result.bits_per_byte, result.seconds, text, TRAINING
    )


def trained(
    wanted: Iterable[tuple[Cell, float, int]],
    study: StudyConfig,
    records: Path,
    processes: int,
    device: str = "cpu",
) -> list[Point]:
    """The points of `wanted`; trains those that `records` has not at these rates, and adds them."""
    corpus = prepare(study.corpus, 1024, 128, corpora_dir())
    setting = Setting(corpus_dir=str(corpus.dir), device=device)
    text, known = str(corpus.meta["hash"]), read(records)
    out, todo = [], []
    for cell, multiple, seed in wanted:
        point = known.get((cell.name, multiple, seed))
        if point is None or not of_today(point, cell, text):
            todo.append((cell, multiple, seed))
        else:
            out.append(point)
    with ProcessPoolExecutor(processes) as pool, records.open("a") as lines:
        waiting = [pool.submit(train, *what, setting) for what in todo]
        for number, future in enumerate(as_completed(waiting), 1):
            out.append(point := future.result())
            lines.write(json.dumps(asdict(point)) + "\n")
            lines.flush()
            print(f"{number} of {len(todo)}: {point}", file=sys.stderr, flush=True)
    return out


def of_today(point: Point, cell: Cell, text: str) -> bool:
    """Whether a training is one of this text, form and rates: of others it says nothing."""
    same_rate = math.isclose(point.matrix_lr, cell.rates(point.multiple).matrix_lr)
    return same_rate and point.corpus == text and SINCE <= point.training <= TRAINING


def read(records: Path) -> dict[tuple[str, float, int], Point]:
    """The trainings that a file has, by cell, multiple and seed; the last of several."""
    lines = records.read_text().splitlines() if records.exists() else []
    points = [Point(**json.loads(line)) for line in lines]
    return {(point.cell, point.multiple, point.seed): point for point in points}


def fit_rows(points: list[Point]) -> list[Row]:
    """The cells' means, the parabolas, and the exponent that each cell gives beside the base."""
    fitted, shapes = fit(points), {cell.name: cell.shape for cell in FITTED}
    out = [
        Row(f"{name}, x{multiple:g}", bits, UNIT)
        for name, of_cell in means(points).items()
        for multiple, bits in of_cell.items()
    ]
    out.append(Row("curvature", fitted.curvature, "bits per byte an octave squared"))
    out.append(Row("a training about its parabola", fitted.residual, UNIT))
    for name, best in fitted.optima.items():
        out.append(Row(f"{name}: best matrix_lr", 2**best))
        out.append(Row(f"{name}: its standard error", fitted.errors[name], "octaves"))
        out.append(Row(f"{name}: least loss", fitted.least[name], UNIT))
        for factor, own, base in zip(Shape._fields, shapes[name], BASE, strict=True):
            if own != base and "base" in fitted.optima:
                exponent = (best - fitted.optima["base"]) / math.log2(own / base)
                error = math.hypot(fitted.errors[name], fitted.errors["base"])
                out.append(Row(f"{name}: exponent of {factor}", exponent))
                out.append(Row(f"{name}: error of it", error / abs(math.log2(own / base))))
    return out


def held_rows(points: list[Point]) -> list[Row]:
    """The cells' means, and what the rule loses in each: by the best of the means, which noise
    makes too good, and by the least of a parabola of the curvature that all cells share."""
    out, fitted = [], regrets(points)
    for name, of_cell in means(points).items():
        out += [Row(f"{name}, x{multiple:g}", bits, UNIT) for multiple, bits in of_cell.items()]
        if 1.0 not in of_cell:
            continue  # a part of the multiples says nothing of the rule
        out.append(at_most(f"{name}: regret", regret(of_cell), MOST_REGRET, UNIT))
        if name in fitted:
            out.append(at_most(f"{name}: regret by its parabola", fitted[name], MOST_REGRET, UNIT))
        for multiple in sorted(of_cell.keys() & {0.5, 2.0}):
            shift = abs(of_cell[multiple] - of_cell[1.0])
            out.append(
                at_most(f"{name}: shift of the mean at x{multiple:g}", shift, MOST_SHIFT, UNIT)
            )
        at_rule = [p.bits_per_byte for p in points if (p.cell, p.multiple) == (name, 1.0)]
        if len(at_rule) > 1 and None not in at_rule:
            out.append(Row(f"{name}: deviation of a seed", stdev(at_rule), UNIT))
    return out


def picture(fit_records: Path, held_records: Path, file: Path) -> int:
    """Draw what both files have; exit code 2 where that cannot be done."""
    from benchmarks.rates_picture import draw, save  # needs a browser, which measuring does not

    try:
        for path in (fit_records, held_records):
            require(path.is_file(), f"records: there is no file {str(path)!r}; measure first")
        fitted, held = (list(read(path).values()) for path in (fit_records, held_records))
        save(draw(fitted, held, MOST_REGRET), file)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def main() -> int:
    """The command."""
    options = parser(__doc__)
    options.add_argument("what", choices=("fit", "held", "draw"))
    options.add_argument("--study", type=Path, default=DEMO, help="its corpus")
    options.add_argument("--records", type=Path, required=True, help="a line a training")
    options.add_argument("--processes", type=int, default=1, help="trainings at once")
    options.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options.add_argument("--multiples", nargs="*", type=float, default=MULTIPLES)
    options.add_argument("--seeds", nargs="*", type=int, help="other ones than each cell's own")
    options.add_argument("--cells", nargs="*", default=[], help="names; all by default")
    options.add_argument("--held", type=Path, default=HELD_RECORDS, help="of held, for draw")
    options.add_argument("--picture", type=Path, default="rates.png", help="what draw writes")
    asked = options.parse_args()
    if asked.what == "draw":
        return picture(asked.records, asked.held, asked.picture)
    all_cells = FITTED if asked.what == "fit" else HELD
    cells = [cell for cell in all_cells if not asked.cells or cell.name in asked.cells]
    wanted = [
        (cell, multiple, seed)
        for cell in cells
        for seed in asked.seeds or cell.seeds
        for multiple in asked.multiples
    ]
    study = StudyConfig.load(asked.study)
    points = trained(wanted, study, asked.records, asked.processes, asked.device)
    return publish(fit_rows(points) if asked.what == "fit" else held_rows(points), asked.json)


if __name__ == "__main__":
    sys.exit(main())
