"""Every kernel with a call of real size: what an offline compiler needs to know.

The sizes are those of benchmarks.catalog_entry.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.catalog_entry import (
    CHOICES,
    EXPERTS,
    HEADS,
    HIDDEN,
    PAIRS,
    PER_TOKEN,
    READS,
    ROOT,
    ROWS,
    TOKENS,
    VOCABULARY,
    WIDTH,
    Entry,
)
from benchmarks.catalog_output_gate import output_gates
from workers.kernels.triton import (
    choice,
    cross_entropy,
    expert_products,
    gated,
    grouped,
    pair_order,
    product_key,
    relu_choice,
    rms_norm,
    rotary,
    row_gradient,
    rows,
    spread,
)
from workers.kernels.triton import gates as threshold

READS_ITS_OWN = {"GATHER": False, "token_ptr": None}
NOT_SHARED = {"SHARED": False, "shared_ptr": None}
FIND = {"PRECISION": "ieee", "BLOCK_B": EXPERTS} | NOT_SHARED
PLAIN, GATHERED = FIND | READS_ITS_OWN, {"PRECISION": "ieee", "BLOCK_B": EXPERTS}
GATHERED |= {"GATHER": True, "SHARED": True}
ALONE = {"PRECISION": "ieee"}
MANY = PLAIN | {"BLOCK_B": grouped.MOST_AT_ONCE}
INDEX = dict.fromkeys(("token_ptr", "place_ptr", "end_ptr"), "*i64")
UP = {"n_experts": EXPERTS, "n_own": EXPERTS, "inner": WIDTH, "outer": HIDDEN, "stride_xp": WIDTH}
UP_TILE = UP | {"stride_wb": WIDTH * HIDDEN, "stride_yp": HIDDEN}
BY_COLUMN = UP_TILE | {"stride_wi": 1, "stride_wo": WIDTH}
BY_ROW = UP_TILE | {"stride_wi": HIDDEN, "stride_wo": 1}
TABLE = {"width": WIDTH, "stride_n": WIDTH, "n_pairs": PAIRS, "n_starts": TOKENS}
TABLE |= {"n_rows": ROWS, "n_steps": PAIRS.bit_length()}
BY_PAIR = {"WEIGHT": "pair"}
TABLE |= {"stride_xt": WIDTH, "stride_yt": WIDTH}
READ = dict.fromkeys(("row_ptr", "start_ptr", "token_ptr", "order_ptr", "end_ptr"), "*i64")
KEYS = {"n_tokens": TOKENS, "root": ROOT, "stride_sh": 2 * TOKENS * ROOT}
KEYS |= {"stride_s2": TOKENS * ROOT, "stride_st": ROOT}
KEYS |= {"stride_oh": TOKENS * CHOICES, "stride_ot": CHOICES}
CHOSEN = {"J": CHOICES, "K": CHOICES, "BLOCK_J": CHOICES, "BLOCK_K": CHOICES, "BLOCK_R": ROOT}
ROWS_OF_PAIRS = {"n_pairs": TOKENS * PER_TOKEN, "width": HIDDEN, "stride_p": HIDDEN}
ROWS_OF_PAIRS |= {"n_weights": 1}
PARTS = ROWS_OF_PAIRS | {"n_weights": PER_TOKEN, "stride_p": PER_TOKEN * HIDDEN}
GATED = {"GATED": True, "WEIGHT": True, "BOUNDED": True}
UNGATED = GATED | {"GATED": False, "gate_ptr": None, "dgate_ptr": None}
FLAT = {"n": TOKENS * PER_TOKEN * HIDDEN}


def catalog() -> tuple[Entry, ...]:
    """All kernels, each with every configuration of its table."""
    products, gradients = grouped.PRODUCT_CONFIGS, grouped.GRADIENT_CONFIGS
    product, gradient = grouped.product_kernel, grouped.weight_gradient_kernel
    losses = {"target_ptr": "*i64", "loss_ptr": "*fp32"}
    lines = {"vocabulary": VOCABULARY, "stride_t": VOCABULARY}
    return (
        Entry("grouped product", product, products, BY_COLUMN, PLAIN, INDEX, "BLOCK_P"),
        Entry("grouped product, w by rows", product, products, BY_ROW, PLAIN, INDEX, "BLOCK_P"),
        Entry("grouped product, many", product, products, BY_ROW, MANY, INDEX, "BLOCK_P"),
        Entry(
            "grouped product, gathered", product, products, BY_COLUMN, GATHERED, INDEX, "BLOCK_P"
        ),
        Entry("weight gradient", gradient, gradients, BY_COLUMN, ALONE, INDEX, "BLOCK_I"),
        Entry("row sum", rows.row_sum_kernel, rows.SUM_CONFIGS, TABLE, BY_PAIR, READ),
        Entry("row dot", rows.row_dot_kernel, rows.DOT_CONFIGS, TABLE, {}, READ),
        Entry(
            "row gradient", row_gradient.row_gradient_kernel, row_gradient.CONFIGS, TABLE, {}, READ
        ),
        *product_keys(),
        *activations(),
        *experts(),
        *output_gates(),
        *routers(),
        *gates(),
        *spreads(),
        *heads(),
        *norms("", TOKENS, WIDTH),
        *norms(", heads", TOKENS * HEADS, WIDTH // HEADS),
        *residual_norms(),
        Entry(
            "cross-entropy",
            cross_entropy.cross_entropy_kernel,
            cross_entropy.CONFIGS,
            lines,
            {},
            losses,
        ),
    )


def product_keys() -> tuple[Entry, Entry]:
    """The search, and its gradient."""
    return (
        Entry(
            "product key",
            product_key.product_key_kernel,
            product_key.CONFIGS,
            KEYS,
            CHOSEN,
            {"score_ptr": "*fp32", "best_ptr": "*fp32", "index_ptr": "*i64"},
        ),
        Entry(
            "product key gradient",
            product_key.product_key_gradient_kernel,
            product_key.CONFIGS[:1],
            KEYS,
            {"K": CHOICES, "BLOCK_K": CHOICES, "BLOCK_R": ROOT},
            {"dbest_ptr": "*fp32", "dscore_ptr": "*fp32", "index_ptr": "*i64"},
        ),
    )


def activations() -> tuple[Entry, ...]:
    """Hidden units and their gradients."""
    return (
        *(
            Entry(f"gated {name} {a}", kernel, gated.CONFIGS, FLAT, {"ACTIVATION": a})
            for a in gated.ACTIVATIONS
            for name, kernel in (
                ("forward", gated.gated_forward_kernel),
                ("backward", gated.gated_backward_kernel),
            )
        ),
        *(
            Entry(
                f"hidden gradients{', gated' if gates else ''} {a}",
                gated.hidden_gradients_kernel,
                gated.HIDDEN_CONFIGS,
                ROWS_OF_PAIRS,
                {"ACTIVATION": a} | (GATED if gates else UNGATED),
                {"end_ptr": "*i64"},
            )
            for a in gated.ACTIVATIONS
            for gates in (True, False)
        ),
        *(
            Entry(
                f"weighted hidden units {a}",
                gated.weighted_hidden_kernel,
                gated.HIDDEN_CONFIGS,
                PARTS,
                {"ACTIVATION": a, "GATED": True},
            )
            for a in gated.ACTIVATIONS
        ),
    )


def experts() -> Iterator[Entry]:
    """The products of routed experts, with gates and shared experts, and without either."""
    sizes = {"n_experts": EXPERTS, "n_own": EXPERTS, "inner": WIDTH, "width": HIDDEN}
    sizes |= {"stride_xt": WIDTH, "stride_yt": WIDTH, "stride_wb": HIDDEN * WIDTH}
    sizes |= {"stride_wg": WIDTH, "stride_pg": HIDDEN, "stride_pd": WIDTH}
    own, fixed = expert_products, {"PRECISION": "ieee"}
    hidden, back = own.hidden_kernel, own.input_gradient_kernel
    gradients, tables = own.matrix_gradients_kernel, own.GRADIENT_CONFIGS
    for suffix, more in ((", gated and shared", True), ("", False)):
        shared = fixed | {"SHARED": more}
        ways = shared | {"GATED": more, "BLOCK_B": EXPERTS}
        if not more:
            ways |= dict.fromkeys(("gates_ptr", "shared_keys_ptr", "shared_gates_ptr"))
        for a in gated.ACTIVATIONS:
            name, act = f"hidden units{suffix} {a}", ways | {"ACTIVATION": a}
            yield Entry(name, hidden, own.HIDDEN_CONFIGS, sizes, act, INDEX, "BLOCK_P")
        one = ways | ({} if more else {"dgate_ptr": None})
        yield Entry(
            f"input gradient{suffix}", back, own.INPUT_CONFIGS, sizes, one, INDEX, "BLOCK_P"
        )
        name = f"matrix gradients{suffix}"
        yield Entry(name, gradients, tables, sizes, shared, INDEX, "BLOCK_G")


def routers() -> Iterator[Entry]:
    """A router's choice with all its losses, and the order of pairs without."""
    runs = pair_order.Runs.of(TOKENS, EXPERTS)
    sizes = {"n_tokens": TOKENS, "n_experts": EXPERTS, "run": runs.length, "n_runs": runs.number}
    sizes |= {"stride_t": EXPERTS, "n_pairs": TOKENS * PER_TOKEN}
    given = {"index_ptr": "*i64"}  # by torch; a router's own are narrower
    small = ("index_ptr", "count_ptr")
    real = ("z_ptr", "bias_ptr", "weight_ptr", "sorted_ptr", "sum_ptr", "loss_ptr", "load_ptr")
    real += ("slope_ptr", "dweight_ptr", "dloss_ptr", "dz_ptr")
    types = dict.fromkeys(small, "*i32") | dict.fromkeys(real, "*fp32")
    types |= dict.fromkeys(("token_ptr", "place_ptr", "start_ptr", "end_ptr"), "*i64")
    types |= dict.fromkeys(("balance", "z", "entropy", "z_weight"), "fp32")
    configs, fixed = (pair_order.CONFIG,), {"K": PER_TOKEN, "ALWAYS": 0, **runs.blocks}
    alone = dict.fromkeys(("weight_ptr", "sorted_ptr", "sum_ptr", "loss_ptr", "load_ptr"))
    alone |= {"slope_ptr": None, "WEIGHT": False, "LOSS": False, "LOAD": False, "SOFTMAX": True}
    count, place = pair_order.count_kernel, pair_order.place_kernel
    counting = {"BLOCK_B": runs.BLOCK_B, "BLOCK_P": pair_order.BLOCK}
    yield Entry("count of pairs", count, configs, sizes, counting, types | given)
    yield Entry("order of pairs", place, configs, sizes, fixed | alone, types | given)
    for gate, softmax in (("softmax", True), ("sigmoid", False)):
        flags = {"NORMALIZE": True, "SOFTMAX": softmax, "LEAST": choice.LEAST}
        chosen = fixed | flags | {"BLOCK_K": PER_TOKEN, "BIAS": True, "LOSS": True}
        placed = fixed | {"WEIGHT": True, "LOSS": True, "LOAD": True, "SOFTMAX": softmax}
        back = fixed | flags | {"WEIGHT": True, "LOSS": True}
        choose, gradient = choice.choose_kernel, choice.choice_gradient_kernel
        yield Entry(f"choice, {gate}", choose, configs, sizes, chosen, types)
        yield Entry(f"choice, {gate}, order", place, configs, sizes, placed, types)
        yield Entry(f"choice, {gate}, gradient", gradient, configs, sizes, back, types)


def spreads() -> Iterator[Entry]:
    """A table of 4,096 rows of which a token reads 128: four heads of 32."""
    configs, types = (spread.CONFIG,), {"index_ptr": "*i64"}
    sizes = {"n_rows": 4096, "n_choices": READS, "distinct": 32, "stride_t": 4096}
    real = dict.fromkeys(("weight_ptr", "d_ptr"), "*fp32")
    forward = {"WEIGHT": True, "ADD": True, "BLOCK_K": 32, "BLOCK_N": spread.BLOCK}
    yield Entry("spread", spread.spread_kernel, configs, sizes, forward, types | real)
    back = {"BLOCK_K": READS}
    kernel = spread.spread_gradient_kernel
    yield Entry("spread, gradient", kernel, configs, sizes, back, types | real)


def gates() -> Iterator[Entry]:
    """Choices by gates that open any number of experts."""
    runs = pair_order.Runs.of(TOKENS, EXPERTS)
    sizes = {"n_tokens": TOKENS, "n_experts": EXPERTS, "run": runs.length, "n_runs": runs.number}
    sizes |= {"stride_t": EXPERTS, "n": TOKENS * EXPERTS}
    real = ("z_ptr", "sum_ptr", "coefficient_ptr", "weight_ptr", "loss_ptr", "slope_ptr")
    types = dict.fromkeys((*real, "dweight_ptr", "dloss_ptr", "dz_ptr"), "*fp32")
    types |= dict.fromkeys(("token_ptr", "order_ptr", "start_ptr", "end_ptr"), "*i64")
    types |= dict.fromkeys(("count_ptr", "place_ptr"), "*i32")
    types |= dict.fromkeys(("tau", "sparsity"), "fp32")
    configs, both = (pair_order.CONFIG,), {"WEIGHT": True, "LOSS": True}
    scaled, flat = runs.blocks | {"RENORMALIZE": True}, both | {"BLOCK": relu_choice.BLOCK}
    for name, kernel, fixed in (
        ("count of open gates", relu_choice.count_open_kernel, runs.blocks),
        ("order of open gates", relu_choice.place_open_kernel, runs.blocks),
        ("open gates, gradient", relu_choice.open_gradient_kernel, flat),
        ("threshold gates", threshold.gates_kernel, scaled),
        ("threshold gates, gradient", threshold.gates_gradient_kernel, scaled | both),
    ):
        yield Entry(name, kernel, configs, sizes, fixed, types)


def heads() -> tuple[Entry, Entry]:
    """Attention's heads, of sequences of 1,024 tokens."""
    width = WIDTH // HEADS
    sizes = {"n_rows": TOKENS * HEADS, "n_heads": HEADS, "length": 1024, "width": width}
    sizes |= {"stride_t": 3 * WIDTH, "stride_an": 0, "stride_al": width // 2}
    types = {
        "eps": "fp32",
        "wq_ptr": "*fp32",
        "wk_ptr": "*fp32",
        "cos_ptr": "*fp32",
        "sin_ptr": "*fp32",
    }
    forward, backward = rotary.normed_heads_forward_kernel, rotary.normed_heads_backward_kernel
    blocks, sums = rotary.blocks(width), types | {"dw_ptr": "*fp32"}
    return (
        Entry("normed heads forward", forward, rotary.CONFIGS, sizes, blocks, types),
        Entry("normed heads backward", backward, rotary.CONFIGS, sizes, blocks, sums),
    )


NORM_ALONE = {"added_ptr": None, "sum_ptr": None, "narrow_ptr": None}
NORM_ALONE |= {"ADDED": False, "WIDE": True, "NARROW": False}
NORM_ALONE_BACK = {"dnarrow_ptr": None, "dsum_ptr": None, "dadded_ptr": None}
NORM_ALONE_BACK |= {"WIDE": True, "NARROW": False, "SUM": False, "ADDED": False}


def norms(suffix: str, n_rows: int, width: int) -> tuple[Entry, Entry]:
    """RMSNorm of rows of one width."""
    sizes, types, blocks = _rows(n_rows, width)
    forward, backward = rms_norm.rms_norm_forward_kernel, rms_norm.rms_norm_backward_kernel
    ahead, back = blocks | NORM_ALONE, blocks | NORM_ALONE_BACK
    return (
        Entry(f"RMSNorm forward{suffix}", forward, rms_norm.CONFIGS, sizes, ahead, types),
        Entry(f"RMSNorm backward{suffix}", backward, rms_norm.CONFIGS, sizes, back, types),
    )


def residual_norms() -> tuple[Entry, Entry]:
    """The same of a residual sum in float32, read in both dtypes."""
    sizes, types, blocks = _rows(TOKENS, WIDTH)
    wide = ("x_ptr", "w_ptr", "sum_ptr", "y_ptr", "dy_ptr", "dsum_ptr", "dx_ptr")
    types = types | dict.fromkeys(wide, "*fp32")
    forward, backward = rms_norm.rms_norm_forward_kernel, rms_norm.rms_norm_backward_kernel
    ahead = blocks | {"ADDED": True, "WIDE": True, "NARROW": True}
    back = ahead | {"SUM": True}
    return (
        Entry("residual norm forward", forward, rms_norm.CONFIGS, sizes, ahead, types),
        Entry("residual norm backward", backward, rms_norm.CONFIGS, sizes, back, types),
    )


def _rows(n_rows: int, width: int) -> tuple[dict[str, int], dict[str, str], dict[str, int]]:
    sizes = {"n_rows": n_rows, "width": width, "stride_t": width, "stride_dwg": width}
    types = {"scale_ptr": "*fp32", "eps": "fp32", "dw_ptr": "*fp32"}
    return sizes, types, rms_norm.blocks(width)
